"""Who gets a place, who waits for one, and who is told to come back later, and when.

Called by `replica_pool.py`; the queue's order is `waiting.py`'s, the choice of a replica the pool's.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from servicekit.errors import BackendUnavailable, Overloaded
from servicekit.ports.clock import Clock
from services.generator.pool.held_lease import HeldLease
from services.generator.pool.lease import Choice, Work
from services.generator.pool.members import Members, tokens_of
from services.generator.pool.metrics import TURNED_AWAY, WAITING
from services.generator.pool.settings import PoolSettings
from services.generator.pool.waiting import FairQueue, Waiter

_LEAST_RETRY_S = 0.05
_LONGEST_RETRY_S = 120.0
_UNKNOWN_RETRY_S = 1.0
_HOLD_WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class Asked:
    """What `ReplicaPool.lease` was asked for."""

    work: Work
    avoid: frozenset[str]
    choice: Choice | None


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    asked: Asked
    place: "asyncio.Future[HeldLease]"


class Admission:
    """The door of a pool. `place` gives a lease where a replica has room now."""

    def __init__(
        self,
        settings: PoolSettings,
        members: Members,
        place: Callable[[Asked], HeldLease | None],
        *,
        clock: Clock,
        pool: str,
    ) -> None:
        self._members = members
        self._place = place
        self._clock = clock
        self._pool = pool
        self._queue: FairQueue[_Waiting] = FairQueue(settings.tenant_weights, max_waiting=settings.max_waiting)
        self._hold_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    async def admit(self, asked: Asked, within_s: float) -> HeldLease:
        """A lease, at once or in its turn; raises as `ReplicaPool.lease` says."""
        if not len(self._members):
            raise BackendUnavailable(f"pool {self._pool!r} has no replica", reason="NO_REPLICA")
        if not self._queue and (lease := self._place(asked)) is not None:
            return lease
        expected_s = self._expected_s(asked)
        if expected_s is not None and expected_s > within_s:
            raise self.turned_away(asked, reason="too_long", retry_after_s=expected_s - within_s)
        if self._queue.full:
            self._make_room(asked)
        return await self._wait(asked, within_s)

    def released(self, lease: HeldLease) -> None:
        """A lease is over; whoever is next gets its place."""
        held_s = self._clock.monotonic_s() - lease.begun_s
        self._hold_s = held_s if self._hold_s is None else self._hold_s + _HOLD_WEIGHT * (held_s - self._hold_s)
        self.dispatch()

    def dispatch(self) -> None:
        """Give places to those that wait, in their order; whoever can go nowhere now lets others pass."""
        for waiter in self._queue or ():
            if waiter.item.place.done():
                continue
            if not self._members.has_room(self._clock.monotonic_s()):
                break
            lease = self._place(waiter.item.asked)
            if lease is not None:
                self._queue.take(waiter, self._clock.monotonic_s())
                waiter.item.place.set_result(lease)
        WAITING.labels(self._pool).set(len(self._queue))
        self._wake_later()

    def turned_away(self, asked: Asked, *, reason: str, retry_after_s: float | None = None) -> Overloaded:
        """The error of work that gets no place."""
        TURNED_AWAY.labels(self._pool, reason).inc()
        if retry_after_s is None:
            retry_after_s = self._expected_s(asked)
        delay_s = _UNKNOWN_RETRY_S if retry_after_s is None else retry_after_s
        delay_s = min(max(delay_s, _LEAST_RETRY_S), _LONGEST_RETRY_S)
        return Overloaded(
            f"pool {self._pool!r} has no free place and {len(self._queue)} waiting; try again in {delay_s:.2f} s",
            retry_after_s=delay_s,
            reason="POOL_OVERLOADED",
            metadata={"cause": reason},
        )

    async def _wait(self, asked: Asked, within_s: float) -> HeldLease:
        place: asyncio.Future[HeldLease] = asyncio.get_running_loop().create_future()
        tokens = tokens_of(asked.work)
        waiter = self._queue.put(asked.work.tenant, tokens, _Waiting(asked, place), self._clock.monotonic_s())
        self.dispatch()
        try:
            async with asyncio.timeout(within_s):
                return await place
        except TimeoutError:
            self._leave(waiter)
            raise self.turned_away(asked, reason="timeout") from None
        except asyncio.CancelledError:
            self._leave(waiter)
            raise

    def _leave(self, waiter: Waiter[_Waiting]) -> None:
        """Wait no longer; a place that was given at the same moment goes to the next."""
        place = waiter.item.place
        if place.done() and not place.cancelled() and place.exception() is None:
            place.result().release()
        elif waiter in self._queue:
            self._queue.drop(waiter, self._clock.monotonic_s())
        self.dispatch()

    def _make_room(self, asked: Asked) -> None:
        """Turn away the new one, or the last of a tenant that has more waiting."""
        shed = self._queue.to_shed(asked.work.tenant)
        if shed is None:
            raise self.turned_away(asked, reason="full")
        self._queue.drop(shed, self._clock.monotonic_s())
        shed.item.place.set_exception(self.turned_away(shed.item.asked, reason="shed"))

    def _expected_s(self, asked: Asked) -> float | None:
        """How long such work would wait now: what comes before it, by the drain seen; None while unknown."""
        ahead, tokens = self._queue.preview(asked.work.tenant, tokens_of(asked.work))
        if (rate := self._queue.tokens_per_s) is not None:
            return tokens / rate
        if self._hold_s is None:
            return None
        return (ahead + 1) * self._hold_s / self._members.places(self._clock.monotonic_s())

    def _wake_later(self) -> None:
        """Look again when a replica that is left alone now may be tried."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_s = self._clock.monotonic_s()
        if self._queue and (opens_s := self._members.opens_s(now_s)) is not None:
            self._timer = asyncio.get_running_loop().call_later(opens_s - now_s + 0.001, self.dispatch)
