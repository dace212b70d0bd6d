"""A pool of replicas that serve one model, driven as one: who works on what, who waits, who is left alone.

Opened by the generator's bootstrap, asked by `attempting.py`. Not thread-safe: one event loop uses it.
"""

import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from servicekit.domain.generation import ModelInfo, TokenCount
from servicekit.domain.prompt import Message
from servicekit.errors import BackendUnavailable
from servicekit.ports.clock import Clock
from servicekit.ports.engine import Engine
from services.generator.pool.admission import Admission, Asked
from services.generator.pool.asking import first_of
from services.generator.pool.choosing import Policy, ShorterWait, usual_rate
from services.generator.pool.held_lease import HeldLease
from services.generator.pool.lease import Choice, Lease, Work
from services.generator.pool.members import Members
from services.generator.pool.metrics import CHOICES, WAIT_SECONDS
from services.generator.pool.polling import Discovery, Polling
from services.generator.pool.replica import Replica, ReplicaStatus
from services.generator.pool.settings import PoolSettings

_FIRST_TOKENS_KEPT = 256
_ENOUGH_FIRST_TOKENS = 50
_HEDGE_QUANTILE = 0.95
# A hedge costs what ten leases earn, and a few may be saved up.
_HEDGES_PER_LEASE = 0.1
_MAX_HEDGES_SAVED = 5.0


class ReplicaPool:
    """Replicas from the start, or as `discovery` finds them while `run` runs; `name` labels logs and metrics."""

    def __init__(
        self,
        engines: Sequence[Engine] = (),
        *,
        clock: Clock,
        settings: PoolSettings | None = None,
        policy: Policy | None = None,
        discovery: Discovery | None = None,
        chance: random.Random | None = None,
        name: str = "",
    ) -> None:
        self._settings = settings or PoolSettings()
        self._clock = clock
        self._name = name
        chance = chance or random.Random()  # noqa: S311  # spreads load, keeps no secret
        self._policy = policy or ShorterWait(self._settings, chance)
        self._members = Members(engines, self._settings, pool=name)
        self._admission = Admission(self._settings, self._members, self._place, clock=clock, pool=name)
        self._polling = Polling(
            self._members, self._settings, discovery, on_change=self._changed, clock=clock, chance=chance, pool=name
        )
        self._key = 0
        self._first_tokens_s: deque[float] = deque(maxlen=_FIRST_TOKENS_KEPT)
        self._hedges_saved = 1.0

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    def lease(
        self, work: Work, *, within_s: float, avoid: frozenset[str] = frozenset(), choice: Choice | None = None
    ) -> AbstractAsyncContextManager[Lease]:
        """A place at one replica, waited for at most `within_s`, kept until the context ends.

        Addresses in `avoid` are taken only if nothing else is there. `choice` names why in place of the pool's own
        reason; a HEDGE never waits, never goes to an address in `avoid`, and is refused when there were many.

        Raises (entering):
            Overloaded: no place in time, or too many wait (POOL_OVERLOADED); says when to try again.
            BackendUnavailable: there is no replica (NO_REPLICA).
        """
        return self._leased(Asked(work, avoid, choice), within_s)

    def hedge_after_s(self) -> float | None:
        """Past which time to first token a second replica may be asked; None: not now.

        The 95th percentile of recent ones; None while hedging is off, few are known or many were hedged lately.
        """
        known = len(self._first_tokens_s)
        if not self._settings.hedging or known < _ENOUGH_FIRST_TOKENS or self._hedges_saved < 1:
            return None
        return sorted(self._first_tokens_s)[int(_HEDGE_QUANTILE * known)]

    async def info(self) -> ModelInfo:
        """What all replicas can do, as last told; asks them if none has told.

        Raises:
            BackendUnavailable, BackendTimeout: none answers.
        """
        return self._members.info() or await self.refresh()

    async def refresh(self) -> ModelInfo:
        """Ask all replicas now; one that answers is enough.

        Raises:
            BackendUnavailable, BackendTimeout: none answers.
        """
        await self._polling.ask_all()
        info = self._members.info()
        if info is None:
            raise BackendUnavailable(f"no replica of pool {self._name!r} serves its model", reason="NO_REPLICA")
        return info

    async def ping(self) -> None:
        """Return if any replica answers; raises as `refresh` does."""
        await self.refresh()

    async def count_tokens(self, text: str) -> TokenCount:
        """By any replica; raises as the engine port says when two cannot."""
        return await first_of(self._by_wait(), lambda engine: engine.count_tokens(text), pool=self._name)

    async def count_messages(self, messages: Sequence[Message]) -> TokenCount:
        """By any replica; raises as the engine port says when two cannot."""
        return await first_of(self._by_wait(), lambda engine: engine.count_messages(messages), pool=self._name)

    def statuses(self) -> tuple[ReplicaStatus, ...]:
        """Every replica, in the order in which they came."""
        now_s, usual = self._clock.monotonic_s(), usual_rate(tuple(self._members))
        return tuple(replica.status(now_s, tokens_per_s=usual) for replica in self._members)

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return self._admission.waiting

    async def run(self) -> None:
        """Poll the replicas, and find new ones, until cancelled; engines that discovery opened are closed then."""
        await self._polling.run()

    @asynccontextmanager
    async def _leased(self, asked: Asked, within_s: float) -> AsyncIterator[Lease]:
        begun_s = self._clock.monotonic_s()
        self._polling.used()
        lease = self._hedge(asked) if asked.choice is Choice.HEDGE else await self._admission.admit(asked, within_s)
        lease.queue_s = self._clock.monotonic_s() - begun_s
        WAIT_SECONDS.labels(self._name).observe(lease.queue_s)
        CHOICES.labels(self._name, lease.choice.value).inc()
        try:
            yield lease
        finally:
            lease.release()
            self._admission.released(lease)

    def _hedge(self, asked: Asked) -> HeldLease:
        others = frozenset(replica.address for replica in self._members) - asked.avoid
        lease = self._place(asked) if others and self._hedges_saved >= 1 and not self._admission.waiting else None
        if lease is None or lease.engine.address in asked.avoid:
            if lease is not None:
                lease.release()
            raise self._admission.turned_away(asked, reason="hedge")
        self._hedges_saved -= 1
        return lease

    def _place(self, asked: Asked) -> HeldLease | None:
        """A lease where a replica has room; None where none has."""
        now_s = self._clock.monotonic_s()
        probing = self._members.probing(now_s) if asked.choice is None else []
        candidates = probing[:1] or self._members.candidates(asked.avoid, now_s)
        if not candidates:
            return None
        pick = self._policy.choose(candidates, asked.work, now_s)
        self._key += 1
        if asked.choice is not Choice.HEDGE:
            self._hedges_saved = min(_MAX_HEDGES_SAVED, self._hedges_saved + _HEDGES_PER_LEASE)
        return HeldLease(
            self._key,
            pick.replica,
            asked.work,
            choice=asked.choice or (Choice.PROBE if probing else pick.choice),
            prefill_tokens=pick.prefill_tokens,
            clock=self._clock,
            told=self,
        )

    def first_token(self, replica: Replica, took_s: float) -> None:
        """A lease tells of its first token."""
        self._first_tokens_s.append(took_s)
        self._members.judge_speed(replica, self._clock.monotonic_s())

    def failure(self, replica: Replica) -> None:
        """A lease tells of its failure."""
        self._members.judge_failures(replica, self._clock.monotonic_s())

    def _changed(self, gone: Replica | None) -> None:
        if gone is not None:
            self._policy.forget(gone.address)
        self._admission.dispatch()

    def _by_wait(self) -> list[Engine]:
        now_s = self._clock.monotonic_s()
        replicas = self._members.candidates(frozenset(), now_s) or self._members.serving()
        usual = usual_rate(replicas)
        return [
            replica.engine
            for replica in sorted(replicas, key=lambda one: one.expected_wait_s(0, now_s, tokens_per_s=usual))
        ]
