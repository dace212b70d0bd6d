"""Cuts a stream whose reader takes nothing: one timer a stream, nothing but a clock reading a message.

Used by `rpc.interceptor` around the writes of a streaming answer.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from servicekit.errors import Overloaded

_CHECKS = 4


class SlowReaderWatch:
    """Cancels the running task when one write has been waiting for `limit_s` (noticed within a quarter more)."""

    __slots__ = ("_limit_s", "_loop", "_timer", "expired", "task", "writing_since_s")

    def __init__(self, *, limit_s: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(limit_s / _CHECKS, self._check)
        self.writing_since_s: float | None = None
        self.expired = False

    def _check(self) -> None:
        since_s = self.writing_since_s
        if since_s is not None and self._loop.time() - since_s >= self._limit_s:
            self.expired = True
            self.task.cancel()
            return
        self._timer = self._loop.call_later(self._limit_s / _CHECKS, self._check)

    @property
    def writing(self) -> bool:
        """Whether a message is on its way into gRPC, which takes no second operation meanwhile."""
        return self.writing_since_s is not None

    def begin(self) -> None:
        """A write begins."""
        self.writing_since_s = self._loop.time()

    def end(self) -> None:
        """It has been taken."""
        self.writing_since_s = None

    def stop(self) -> None:
        """The stream is over."""
        self._timer.cancel()

    def uncancel(self) -> None:
        """Take back the cancelling that `_check` asked for."""
        self.task.uncancel()


@contextmanager
def watching(*, limit_s: float) -> Iterator[SlowReaderWatch]:
    """Watch the writes of the running task's stream.

    Raises:
        Overloaded: reason SLOW_READER, in place of the cancelling, when the watch cut the stream.
    """
    watch = SlowReaderWatch(limit_s=limit_s)
    try:
        yield watch
    except asyncio.CancelledError as exc:
        if not watch.expired:
            raise
        watch.uncancel()
        raise Overloaded(
            f"the stream was cut: nothing was read from it for {limit_s:g} s", reason="SLOW_READER"
        ) from exc
    finally:
        watch.stop()
