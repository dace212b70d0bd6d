"""Runs the judging of short texts at once and of long ones in a few threads, so that the event loop stays free.

Owned by `bootstrap.py`, used by `checking.py`.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from threading import Lock
from types import TracebackType
from typing import Self, TypeVar

from servicekit.errors import BackendTimeout, Overloaded

INLINE_CHARS = 2_000
"""Up to this length judging takes about a millisecond, less than a thread's round trip under load."""

T = TypeVar("T")


class Workers:
    """`threads` at work, `queue` checks waiting at most; beyond it a check is refused as overload."""

    def __init__(self, *, threads: int, queue: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="judge")
        self._room = threads + queue
        self._busy = 0
        self._lock = Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def run(self, work: Callable[[], T], *, chars: int, deadline_s: float | None) -> T:
        """The result of `work` over a text of `chars` characters.

        Raises:
            Overloaded: too many long texts are waiting.
            BackendTimeout: not done in time; work that has begun ends by itself, its result unused.
        """
        if chars <= INLINE_CHARS:
            return work()
        if self._busy >= self._room:
            raise Overloaded(
                f"{self._busy} long texts are being judged; try again, or send shorter ones", retry_after_s=0.5
            )
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.wrap_future(self._submit(work))
        except TimeoutError as exc:
            raise BackendTimeout(
                f"{chars} characters were not judged within the deadline; allow more time or send less",
                reason="CHECK_TIMEOUT",
            ) from exc

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        """Start it; it counts as busy until its thread is free again, whoever still waits for it."""
        future = self._executor.submit(copy_context().run, work)
        with self._lock:
            self._busy += 1
        future.add_done_callback(self._done)
        return future

    def _done(self, _: Future[T]) -> None:
        with self._lock:
            self._busy -= 1
