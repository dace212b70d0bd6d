"""Keeps a pool's picture of its replicas fresh: who is there, who answers, what they serve and have to do.

Run by `replica_pool.py` as one task that owns all others; no failure of a replica ends it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol

import structlog

from servicekit.errors import BackendTimeout, BackendUnavailable, BinnacleError
from servicekit.ports.clock import Clock
from servicekit.ports.engine import Engine
from services.generator.pool.health import ReplicaState
from services.generator.pool.members import Members
from services.generator.pool.metrics import OUTSTANDING_TOKENS, REPLICAS
from services.generator.pool.replica import Replica
from services.generator.pool.settings import PoolSettings

_BUSY_FOR_S = 5.0
_STRAGGLERS_S = 0.25
_JITTER = 0.2

log = structlog.get_logger()


class Discovery(Protocol):
    """Finds the replicas that there are."""

    async def find(self) -> frozenset[str]:
        """Their URLs now.

        Raises:
            BackendUnavailable: it cannot be told; those that are known stay.
        """
        ...

    def open(self, url: str) -> AbstractAsyncContextManager[Engine]:
        """Connect to one; its address may differ from the URL."""
        ...


class Polling:
    """`on_change` is called after anything that may free a place, with a replica that went if one did."""

    def __init__(
        self,
        members: Members,
        settings: PoolSettings,
        discovery: Discovery | None,
        *,
        on_change: Callable[[Replica | None], None],
        clock: Clock,
        chance: random.Random,
        pool: str,
    ) -> None:
        self._members = members
        self._settings = settings
        self._discovery = discovery
        self._on_change = on_change
        self._clock = clock
        self._chance = chance
        self._pool = pool
        self._used_s = float("-inf")
        self._found = asyncio.Event()
        self._open: dict[str, tuple[Replica, AsyncExitStack]] = {}
        self._leaving: list[tuple[Replica, AsyncExitStack]] = []

    def used(self) -> None:
        """There is traffic, so that loads are worth asking for."""
        self._used_s = self._clock.monotonic_s()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                if self._discovery is not None:
                    group.create_task(self._repeat(self._discover, self._settings.discover_every_s))
                group.create_task(self._repeat(self._loads, self._settings.load_every_s))
                group.create_task(self._repeat(self._checks, self._settings.check_every_s))
                group.create_task(self._repeat(self._infos, self._settings.info_every_s))
        finally:
            for _, stack in (*self._open.values(), *self._leaving):
                await stack.aclose()

    async def ask_all(self) -> None:
        """Ask every replica what it serves; returns soon after the first has answered.

        Raises:
            BackendUnavailable, BackendTimeout: none has; as the first that failed said.
        """
        await self._wait_for_discovery()
        replicas = tuple(self._members)
        if not replicas:
            raise BackendUnavailable(f"pool {self._pool!r} has no replica", reason="NO_REPLICA")
        errors: list[BinnacleError] = []
        async with asyncio.TaskGroup() as group:
            pending = {group.create_task(self._ask(replica)) for replica in replicas}
            while pending and len(errors) + len(pending) == len(replicas):
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                errors += [error for task in done if (error := task.result()) is not None]
            if pending:
                _, pending = await asyncio.wait(pending, timeout=_STRAGGLERS_S)
            for task in pending:
                task.cancel()
        if len(errors) == len(replicas):
            raise errors[0]

    async def _wait_for_discovery(self) -> None:
        if self._discovery is None or len(self._members):
            return
        try:
            async with asyncio.timeout(self._settings.poll_within_s):
                await self._found.wait()
        except TimeoutError as exc:
            raise BackendUnavailable(f"pool {self._pool!r} has found no replica", reason="NO_REPLICA") from exc

    async def _repeat(self, step: Callable[[], Awaitable[None]], every_s: float) -> None:
        while True:
            try:
                await step()
            except Exception:  # the next round may fare better, and a pool without it is blind
                log.exception("pool.poll_failed", pool=self._pool, step=step.__name__)
            await asyncio.sleep(every_s * self._chance.uniform(1 - _JITTER, 1 + _JITTER))

    async def _infos(self) -> None:
        await asyncio.gather(*(self._ask(replica) for replica in self._members))

    async def _checks(self) -> None:
        """Ask again those that have told nothing, or failed."""
        now_s = self._clock.monotonic_s()
        doubtful = [
            replica
            for replica in self._members
            if replica.info is None or replica.health.state(now_s) is not ReplicaState.HEALTHY
        ]
        await asyncio.gather(*(self._ask(replica) for replica in doubtful))
        self._count()

    async def _loads(self) -> None:
        if self._clock.monotonic_s() - self._used_s < _BUSY_FOR_S:
            await asyncio.gather(*(self._ask_load(replica) for replica in self._members))

    async def _ask(self, replica: Replica) -> BinnacleError | None:
        """What it serves; returns the error of one that does not answer."""
        error: BinnacleError | None = None
        try:
            async with asyncio.timeout(self._settings.poll_within_s):
                replica.info = await replica.engine.info()
        except TimeoutError:
            error = BackendTimeout(f"{replica.address} does not say what it serves", reason="ENGINE_TIMEOUT")
        except BinnacleError as exc:
            error = exc
        replica.health.checked(error)
        self._members.agree()
        self._on_change(None)
        return error

    async def _ask_load(self, replica: Replica) -> None:
        try:
            async with asyncio.timeout(self._settings.poll_within_s):
                load = await replica.engine.load()
        except (TimeoutError, BinnacleError):
            return  # generations and checks tell of failures; an old load is believed for a while only
        if load is not None:
            replica.told(load, self._clock.monotonic_s())

    async def _discover(self) -> None:
        assert self._discovery is not None
        await self._close_drained()
        try:
            found = await self._discovery.find()
        except BackendUnavailable as error:
            log.warning("pool.discovery_failed", pool=self._pool, reason=error.reason)
            return
        for url in self._open.keys() - found:
            replica, stack = self._open.pop(url)
            self._members.remove(replica)
            self._leaving.append((replica, stack))
            self._on_change(replica)
        for url in sorted(found - self._open.keys()):
            stack = AsyncExitStack()
            replica = self._members.add(await stack.enter_async_context(self._discovery.open(url)))
            self._open[url] = (replica, stack)
        if found:
            self._found.set()
        await self._checks()

    async def _close_drained(self) -> None:
        """Close the engines of replicas that went, once their work is over."""
        drained = [(replica, stack) for replica, stack in self._leaving if not replica.leases]
        self._leaving = [(replica, stack) for replica, stack in self._leaving if replica.leases]
        for _, stack in drained:
            await stack.aclose()

    def _count(self) -> None:
        now_s = self._clock.monotonic_s()
        states = [replica.health.state(now_s) for replica in self._members]
        for state in ReplicaState:
            REPLICAS.labels(self._pool, state.value).set(states.count(state))
        OUTSTANDING_TOKENS.labels(self._pool).set(sum(replica.outstanding_tokens for replica in self._members))
