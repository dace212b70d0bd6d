"""How much time is left for a request, shared out to its stages. Set by the RPC server, spent by clients and domains.

The caller's gRPC deadline opens the budget; outgoing calls never get more than what remains of it.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from servicekit.ports.clock import Clock, SystemClock


class Budget:
    """A point on the monotonic clock until which work may go on; infinite for subscriptions."""

    __slots__ = ("_clock", "_ends_s", "granted_s")

    def __init__(self, ends_s: float, *, granted_s: float, clock: Clock) -> None:
        self._ends_s = ends_s
        self._clock = clock
        self.granted_s = granted_s

    @classmethod
    def from_remaining(cls, seconds: float, clock: Clock | None = None) -> "Budget":
        """A budget of `seconds` from now; `math.inf` for one without end."""
        used = clock or SystemClock()
        return cls(used.monotonic_s() + seconds, granted_s=seconds, clock=used)

    def remaining_s(self) -> float:
        """Seconds left, never negative; `math.inf` for a budget without end."""
        return max(0.0, self._ends_s - self._clock.monotonic_s())

    def spent_s(self) -> float:
        """Seconds since the budget was opened; meaningless for one without end."""
        return self.granted_s - self.remaining_s()

    @property
    def expired(self) -> bool:
        """Whether nothing is left."""
        return self.remaining_s() <= 0

    def share(self, fraction: float) -> "Budget":
        """A budget of this fraction of what is left now."""
        return Budget.from_remaining(self.remaining_s() * fraction, self._clock)

    def less(self, reserve_s: float) -> "Budget":
        """A budget of what is left now, without the reserve held back for later work."""
        return Budget.from_remaining(max(0.0, self.remaining_s() - reserve_s), self._clock)

    def timeout_s(self) -> float | None:
        """What is left in the form that `asyncio.timeout` and gRPC take: None without end."""
        remaining = self.remaining_s()
        return None if math.isinf(remaining) else remaining


_budget: ContextVar[Budget | None] = ContextVar("budget", default=None)


def current_budget() -> Budget | None:
    """The running request's budget, or None outside of any request."""
    return _budget.get()


def set_budget(budget: Budget) -> None:
    """Make this the running call's budget until its task ends."""
    _budget.set(budget)


@contextmanager
def within(budget: Budget) -> Iterator[Budget]:
    """Run a stage under its own budget: outgoing calls inside take their deadline from it."""
    token = _budget.set(budget)
    try:
        yield budget
    finally:
        _budget.reset(token)
