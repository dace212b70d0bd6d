"""Runs queries of the blocking engine for an asyncio server: bounded threads, bounded queues, cancellation.

Sits between `services.local.clickhouse.http` and `engine`.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, closing
from types import TracebackType
from typing import Self

from services.local.clickhouse.engine import Chunk, EngineError

_QUEUED_CHUNKS = 4


class QueryRunner:
    """At most `threads` queries at once, at most `max_waiting` behind them."""

    def __init__(self, *, threads: int, max_waiting: int) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="query")
        self._limit = threads + max_waiting
        self._running = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    @asynccontextmanager
    async def run(self, query: Callable[[], Generator[Chunk]]) -> AsyncIterator[AsyncIterator[Chunk]]:
        """The query's chunks as they come; leaving the block early cancels it.

        Raises:
            EngineError: the engine's own, or TOO_MANY_SIMULTANEOUS_QUERIES.
        """
        if self._running >= self._limit:
            text = (
                f"Code: 202. DB::Exception: Too many simultaneous queries. Maximum: {self._limit}. "
                "(TOO_MANY_SIMULTANEOUS_QUERIES)"
            )
            raise EngineError(text, code=202)
        self._running += 1
        try:
            async with aclosing(self._chunks(query)) as chunks:
                yield chunks
        finally:
            self._running -= 1

    async def _chunks(self, query: Callable[[], Generator[Chunk]]) -> AsyncGenerator[Chunk]:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Chunk | None] = asyncio.Queue(_QUEUED_CHUNKS)
        abandoned = threading.Event()

        def put(item: Chunk | None) -> bool:
            if abandoned.is_set():
                return False
            try:
                asyncio.run_coroutine_threadsafe(queue.put(item), loop).result()
            except (CancelledError, RuntimeError):
                return False
            return True

        def work() -> None:
            try:
                with closing(query()) as chunks:
                    for chunk in chunks:
                        if not put(chunk):
                            return
            finally:
                put(None)

        future = loop.run_in_executor(self._pool, work)
        try:
            while (chunk := await queue.get()) is not None:
                yield chunk
            await future
        finally:
            abandoned.set()
            while not queue.empty():  # lets a worker that waits for room see that it is abandoned
                queue.get_nowait()
