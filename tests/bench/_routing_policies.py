"""The policies that the routing benchmark compares with: the usual ones, and an oracle.

Each gives leases as the pool does, without its health, queue or limits; they live here, not in the product.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from servicekit.errors import BinnacleError
from servicekit.ports.engine import Engine
from servicekit.testing.tgi_server.dials import Dials, Fault
from services.generator.pool.lease import Choice, Lease, Work

Pick = Callable[[Sequence[Engine], Work, Counter[str]], Engine]


class Router(Protocol):
    """What the benchmark drives."""

    def lease(
        self, work: Work, *, within_s: float, avoid: frozenset[str] = frozenset(), choice: Choice | None = None
    ) -> AbstractAsyncContextManager[Lease]:
        """As `ReplicaPool.lease`."""
        ...


class PlainRouter:
    """Any rule over the engines and how much work each has from here."""

    def __init__(self, engines: Sequence[Engine], pick: Pick) -> None:
        self._engines = engines
        self._pick = pick
        self._open: Counter[str] = Counter()

    @asynccontextmanager
    async def lease(
        self, work: Work, *, within_s: float, avoid: frozenset[str] = frozenset(), choice: Choice | None = None
    ) -> AsyncIterator[Lease]:
        """At once, never full."""
        engines = [engine for engine in self._engines if engine.address not in avoid] or self._engines
        engine = self._pick(engines, work, self._open)
        self._open[engine.address] += 1
        try:
            yield _PlainLease(engine, choice or Choice.ONLY)
        finally:
            self._open[engine.address] -= 1


class _PlainLease:
    def __init__(self, engine: Engine, choice: Choice) -> None:
        self.engine = engine
        self.choice = choice
        self.queue_s = 0.0

    def received(self, tokens: int) -> None:
        """Of no use here."""

    def failed(self, error: BinnacleError) -> None:
        """Of no use here."""


def round_robin() -> Pick:
    """One after the other."""
    turn = count()
    return lambda engines, work, opened: engines[next(turn) % len(engines)]


def at_random(seed: int) -> Pick:
    """Any."""
    chance = random.Random(seed)
    return lambda engines, work, opened: chance.choice(engines)


def least_outstanding(seed: int) -> Pick:
    """The one with the fewest requests from here, any of several."""
    chance = random.Random(seed)
    return lambda engines, work, opened: min(engines, key=lambda engine: (opened[engine.address], chance.random()))


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens that a server read, those of them that its cache had, and those computed for what did not end well."""

    input_tokens: int
    cached_tokens: int
    wasted_tokens: int


class TellsAll(Protocol):
    """A server that an oracle may look into."""

    @property
    def dials(self) -> Dials:
        """How it is set."""
        ...

    @property
    def spent(self) -> Spent:
        """What it did so far."""
        ...

    def exact_wait_s(self, prompt: str, now_s: float) -> float:
        """When such a prompt would have its first token."""
        ...


def oracle(servers: Mapping[str, TellsAll]) -> Pick:
    """The least wait by every queue as it is, tries after failures included."""

    def pick(engines: Sequence[Engine], work: Work, opened: Counter[str]) -> Engine:
        now_s = asyncio.get_running_loop().time()

        def cost(engine: Engine) -> float:
            server = servers[engine.address]
            fails = server.dials.fault_share if server.dials.fault is not Fault.NONE else 0.0
            return server.exact_wait_s(work.prefix, now_s) / (1 - fails)

        return min(engines, key=cost)

    return pick
