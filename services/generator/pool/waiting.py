"""The queue before a full pool: fair between tenants by tokens and weight, bounded, honest about how long it takes.

Pure; kept by `replica_pool.py`. Start-time fair queueing: Goyal, Vin, Cheng, "Start-time Fair Queueing" (1996).
"""

import bisect
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.generator.pool.speed import Backlog

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Waiter(Generic[T]):
    """One that waits; `starts` is its place in virtual time, tokens per unit of weight."""

    tenant: str
    tokens: int
    starts: float
    ends: float
    number: int
    item: T

    @property
    def order(self) -> tuple[float, int]:
        """What the queue is sorted by."""
        return self.starts, self.number


class FairQueue(Generic[T]):
    """Waiters of all tenants in the order in which they get their turn."""

    def __init__(self, weights: Mapping[str, float], *, max_waiting: int) -> None:
        self._weights = weights
        self._max_waiting = max_waiting
        self._waiters: list[Waiter[T]] = []
        self._by_tenant: Counter[str] = Counter()
        self._ends: dict[str, float] = {}
        self._virtual = 0.0
        self._number = 0
        self._drain = Backlog()

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Iterator[Waiter[T]]:
        return iter(tuple(self._waiters))

    @property
    def tokens_per_s(self) -> float | None:
        """How fast the queue drains while it is one; None until known."""
        return self._drain.tokens_per_s

    def preview(self, tenant: str, tokens: int) -> tuple[int, int]:
        """Waiters and tokens that would come before such work, its own tokens included."""
        starts = self._start(tenant)
        ahead = bisect.bisect_right(self._waiters, (starts, self._number + 1), key=lambda waiter: waiter.order)
        return ahead, tokens + sum(waiter.tokens for waiter in self._waiters[:ahead])

    def put(self, tenant: str, tokens: int, item: T, now_s: float) -> Waiter[T]:
        """Wait; the queue must not be full."""
        starts = self._start(tenant)
        self._number += 1
        ends = starts + tokens / self._weight(tenant)
        waiter = Waiter(tenant, tokens, starts, ends, self._number, item)
        self._ends[tenant] = ends
        bisect.insort(self._waiters, waiter, key=lambda one: one.order)
        self._by_tenant[tenant] += 1
        self._drain.put(tokens, now_s)
        return waiter

    def take(self, waiter: Waiter[T], now_s: float) -> None:
        """It got its place."""
        self._virtual = max(self._virtual, waiter.starts)
        self._remove(waiter, now_s, served=True)

    def drop(self, waiter: Waiter[T], now_s: float) -> None:
        """It waits no longer; its tenant is not charged for it if nothing of the tenant's came after."""
        if self._ends.get(waiter.tenant) == waiter.ends:
            self._ends[waiter.tenant] = waiter.starts
        self._remove(waiter, now_s, served=False)

    @property
    def full(self) -> bool:
        """Whether one more must be turned away, or another for it."""
        return len(self._waiters) >= self._max_waiting

    def to_shed(self, tenant: str) -> Waiter[T] | None:
        """Whom to turn away for one more of `tenant`: the last of whoever has most waiting; None: the new one."""
        if not self._by_tenant:
            return None
        most = max(self._by_tenant, key=lambda name: self._by_tenant[name] / self._weight(name))
        mine = (self._by_tenant[tenant] + 1) / self._weight(tenant)
        if most == tenant or mine >= self._by_tenant[most] / self._weight(most):
            return None
        return next(waiter for waiter in reversed(self._waiters) if waiter.tenant == most)

    def _start(self, tenant: str) -> float:
        return max(self._virtual, self._ends.get(tenant, 0.0))

    def _weight(self, tenant: str) -> float:
        return self._weights.get(tenant, 1.0)

    def _remove(self, waiter: Waiter[T], now_s: float, *, served: bool) -> None:
        position = bisect.bisect_left(self._waiters, waiter.order, key=lambda one: one.order)
        del self._waiters[position]
        self._drain.take(waiter.tokens, now_s, served=served)
        self._by_tenant[waiter.tenant] -= 1
        if not self._by_tenant[waiter.tenant]:
            del self._by_tenant[waiter.tenant]
            if self._ends.get(waiter.tenant, 0.0) <= self._virtual:
                self._ends.pop(waiter.tenant, None)
        if not self._waiters:
            self._ends.clear()
            self._virtual = 0.0
