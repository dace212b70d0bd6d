"""Runs queries of the blocking engine for an asyncio server: bounded threads, waits and queues, cancellation.

Sits between `services.local.clickhouse.answer` and `engine`.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import asynccontextmanager, closing, suppress
from types import TracebackType
from typing import Self

from services.local.clickhouse.engine import Chunk
from services.local.clickhouse.errors import EngineError, refusal
from services.local.clickhouse.limits import Limits

_QUEUED_CHUNKS = 4
_CANCELLED_WITHIN_S = 5.0

Query = Callable[[], Generator[Chunk]]
Cancel = Callable[[], None]


class QueryRunner:
    """At most `limits.threads` queries at once, and behind them `limits.max_waiting`, each for `max_wait_s`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pool = ThreadPoolExecutor(limits.threads, thread_name_prefix="query")
        self._cancelling = ThreadPoolExecutor(1, thread_name_prefix="cancel")
        self._free = asyncio.Semaphore(limits.threads)
        self._waiting = 0
        self._running: dict[Future[None], Cancel] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel what still runs: nobody waits for it any more."""
        self._cancelling.shutdown(wait=True)
        left = dict(self._running)
        for cancel in left.values():
            cancel()
        wait(left, timeout=_CANCELLED_WITHIN_S)
        self._pool.shutdown(wait=True, cancel_futures=True)

    @asynccontextmanager
    async def run(self, query: Query, *, cancel: Cancel, goes_on: bool) -> AsyncIterator[AsyncIterator[Chunk]]:
        """The query's chunks as they come; leaving the block early cancels it, unless it `goes_on` by itself.

        `cancel` is called from another thread while the query runs.

        Raises:
            EngineError: the engine's own, or TOO_MANY_SIMULTANEOUS_QUERIES.
        """
        await self._enter()
        handover = _Handover(asyncio.get_running_loop(), give_up_after_s=self._limits.send_within_s)
        running = self._pool.submit(handover.fill, query)
        self._running[running] = cancel
        running.add_done_callback(self._running.pop)
        # A thread is free when its query is done, which may be after its caller left.
        running.add_done_callback(lambda done: handover.finish(done, then=self._free.release))
        try:
            yield handover
        finally:
            handover.abandon()
            if not running.done() and not goes_on:
                self._cancelling.submit(cancel)

    async def _enter(self) -> None:
        if self._free.locked() and self._waiting >= self._limits.max_waiting:
            raise self._too_many()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._limits.max_wait_s):
                await self._free.acquire()
        except TimeoutError as error:
            raise self._too_many() from error
        finally:
            self._waiting -= 1

    def _too_many(self) -> EngineError:
        return refusal(
            f"Too many simultaneous queries. {self._limits.threads} run and {self._limits.max_waiting} may wait, "
            f"each for {self._limits.max_wait_s:g} s: try again later",
            code=202,
            name="TOO_MANY_SIMULTANEOUS_QUERIES",
        )


class _Handover:
    """Chunks on their way from a query's thread to the event loop, a few at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, give_up_after_s: float) -> None:
        self._loop = loop
        self._give_up_after_s = give_up_after_s
        self._queue: asyncio.Queue[Chunk | Future[None]] = asyncio.Queue()
        self._room = threading.Semaphore(_QUEUED_CHUNKS)
        self._abandoned = threading.Event()

    def fill(self, query: Query) -> None:
        """In the query's thread: hand over all of it, as fast as it is taken."""
        if self._abandoned.is_set():
            return
        with closing(query()) as chunks:
            for chunk in chunks:
                if not self._room.acquire(timeout=self._give_up_after_s):
                    raise refusal(
                        f"the client took nothing of the result for {self._give_up_after_s:g} s",
                        code=209,
                        name="SOCKET_TIMEOUT",
                    )
                if self._abandoned.is_set():
                    return
                self._loop.call_soon_threadsafe(self._queue.put_nowait, chunk)

    def finish(self, done: "Future[None]", *, then: Callable[[], object]) -> None:
        """In the query's thread: the last of it, good or bad."""
        with suppress(RuntimeError):  # the loop may have ended before
            self._loop.call_soon_threadsafe(self._queue.put_nowait, done)
            self._loop.call_soon_threadsafe(then)

    def abandon(self) -> None:
        """In the loop: nobody takes chunks any more."""
        self._abandoned.set()
        self._room.release()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        item = await self._queue.get()
        if isinstance(item, Future):
            try:
                item.result()  # raises what the query raised
            finally:
                del item  # its exception would keep this frame, and this frame the rows of an insert
            raise StopAsyncIteration
        self._room.release()
        return item
