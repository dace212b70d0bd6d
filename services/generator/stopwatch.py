"""Bounds every wait of one stream by a single timer, so that no token pays for a timer of its own.

Used by `attempting.py` for the tokens after the first.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Stopwatch:
    """Runs out once; a wait that is under way then, or begins later, ends in TimeoutError.

    Like `asyncio.timeout`, it cancels the waiting task and takes that cancellation back; unlike it, it may be held
    across the yields of a generator, during which nothing is cancelled. To be stopped when it is no longer needed.
    """

    def __init__(self, within_s: float) -> None:
        self._waiting: asyncio.Task[Any] | None = None
        self._expired = within_s <= 0
        self._cancelled = False
        self._timer: asyncio.TimerHandle | None = None
        if not self._expired and not math.isinf(within_s):
            self._timer = asyncio.get_running_loop().call_later(within_s, self._expire)

    async def wait(self, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of what `begin` starts.

        Raises:
            TimeoutError: the time ran out before, or meanwhile.
        """
        if self._expired:
            raise TimeoutError
        task = self._waiting = asyncio.current_task()
        assert task is not None, "runs in a task"
        others = task.cancelling()
        try:
            return await begin()
        except asyncio.CancelledError:
            if self._cancelled and task.uncancel() <= others:
                raise TimeoutError from None
            raise
        finally:
            self._waiting = None

    def stop(self) -> None:
        """Run out no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        self._expired = True
        if self._waiting is not None:
            self._cancelled = True
            self._waiting.cancel()
