"""An event loop whose clock jumps to the next timer instead of waiting for it: hours of queueing in seconds.

Used by the routing benchmark and the pool's tests; what runs in it must wait on timers and futures only, not on I/O.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

_EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


class _JumpingSelector(selectors.DefaultSelector):
    """Returns at once, having moved the clock by as long as it was to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.jumped_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or timeout == 0:
            return events
        if timeout is None:
            raise RuntimeError("all tasks wait for something that no timer brings")
        # A hair more than asked for, so that rounding never leaves a timer due in no time at all.
        self.jumped_s += max(timeout, 0.0) + 1e-9
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`time()` begins at 0."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Seconds since the loop was made, jumps only."""
        return self._jumping.jumped_s


class LoopClock:
    """Implements `ports.clock.Clock` by the running loop's time."""

    def now(self) -> datetime:
        """The time in UTC, aware."""
        return _EPOCH + timedelta(seconds=self.monotonic_s())

    def monotonic_s(self) -> float:
        """Seconds of the loop."""
        return asyncio.get_running_loop().time()


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
