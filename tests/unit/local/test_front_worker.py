"""Queries of the embedded ClickHouse wait for a thread for a bounded time, and end when nobody takes their result."""

import asyncio
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace

import pytest

from services.local.clickhouse.engine import Chunk
from services.local.clickhouse.errors import EngineError
from services.local.clickhouse.limits import Limits
from services.local.clickhouse.worker import QueryRunner

_LIMITS = Limits(threads=1, max_waiting=1, max_wait_s=0.05, send_within_s=0.05)


class _Query:
    """A query that gives `count` chunks and then waits to be let go or cancelled."""

    def __init__(self, count: int = 0, *, holds: bool = True) -> None:
        self.started = threading.Event()
        self.released = threading.Event()
        self.closed = threading.Event()
        self.cancelled = threading.Event()
        self._count = count
        self._holds = holds

    def __call__(self) -> Generator[Chunk]:
        self.started.set()
        try:
            for number in range(self._count):
                yield Chunk(str(number).encode())
            if self._holds:
                assert self.released.wait(10)
        finally:
            self.closed.set()

    def cancel(self) -> None:
        """What the engine's cancelling would do."""
        self.cancelled.set()
        self.released.set()


@pytest.fixture
def open_runner() -> Iterator[Callable[[Limits], QueryRunner]]:
    """Makes runners and closes them."""
    runners: list[QueryRunner] = []

    def make(limits: Limits) -> QueryRunner:
        runners.append(QueryRunner(limits))
        return runners[-1]

    yield make
    for runner in runners:
        with runner:
            pass


async def _all(runner: QueryRunner, query: _Query) -> list[bytes]:
    async with runner.run(query, cancel=query.cancel, goes_on=False) as chunks:
        return [chunk.data async for chunk in chunks]


async def _waited(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 10)


async def test_chunks_come_in_order(open_runner: Callable[[Limits], QueryRunner]) -> None:
    """More of them than are ever in flight."""
    query = _Query(100, holds=False)
    runner = open_runner(replace(_LIMITS, send_within_s=10))
    assert await _all(runner, query) == [str(number).encode() for number in range(100)]
    assert query.closed.is_set()
    assert not query.cancelled.is_set()


async def test_a_query_that_waits_too_long_is_refused(open_runner: Callable[[Limits], QueryRunner]) -> None:
    """With ClickHouse's own code; so is one that finds the queue full."""
    runner = open_runner(_LIMITS)
    running = _Query()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_all(runner, running))
        await _waited(running.started)
        waiting = asyncio.gather(*(_all(runner, _Query()) for _ in range(3)), return_exceptions=True)
        refused = await waiting
        running.released.set()
    assert [error.code for error in refused if isinstance(error, EngineError)] == [202, 202, 202]
    assert await _all(runner, _Query(1, holds=False)) == [b"0"]


async def test_who_leaves_cancels_what_runs(open_runner: Callable[[Limits], QueryRunner]) -> None:
    """The thread is free again afterwards."""
    runner = open_runner(replace(_LIMITS, max_wait_s=10))
    left = _Query()
    task = asyncio.create_task(_all(runner, left))
    await _waited(left.started)
    task.cancel()
    await _waited(left.cancelled)
    assert await _all(runner, _Query(1, holds=False)) == [b"0"]


async def test_an_insert_goes_on_when_its_client_leaves(open_runner: Callable[[Limits], QueryRunner]) -> None:
    """As on a server: half of it would be worse, and its thread stays taken until it is done."""
    runner = open_runner(replace(_LIMITS, max_wait_s=10))
    insert = _Query()

    async def run() -> None:
        async with runner.run(insert, cancel=insert.cancel, goes_on=True) as chunks:
            async for _chunk in chunks:
                pass

    task = asyncio.create_task(run())
    await _waited(insert.started)
    task.cancel()
    await asyncio.wait({task})
    assert not insert.cancelled.is_set()
    insert.released.set()
    assert await _all(runner, _Query(1, holds=False)) == [b"0"]
    assert insert.closed.is_set()


async def test_a_client_that_takes_nothing_loses_its_query(open_runner: Callable[[Limits], QueryRunner]) -> None:
    """A slow reader pins no thread, and is told that its result is not whole."""
    runner = open_runner(_LIMITS)
    query = _Query(100, holds=False)
    async with runner.run(query, cancel=query.cancel, goes_on=False) as chunks:
        await _waited(query.closed)
        with pytest.raises(EngineError, match="SOCKET_TIMEOUT"):
            [chunk async for chunk in chunks]


async def test_an_error_comes_behind_the_chunks_before_it(open_runner: Callable[[Limits], QueryRunner]) -> None:
    """What was computed until then is handed over first."""

    def query() -> Generator[Chunk]:
        yield Chunk(b"first")
        raise EngineError("Code: 1.", code=1)

    runner = open_runner(_LIMITS)
    async with runner.run(query, cancel=lambda: None, goes_on=False) as chunks:
        assert (await anext(chunks)).data == b"first"
        with pytest.raises(EngineError):
            await anext(chunks)


async def test_closing_cancels_what_still_runs() -> None:
    """Nobody waits for it any more, so the process can end."""
    query = _Query()
    with QueryRunner(_LIMITS) as runner:
        task = asyncio.create_task(_all(runner, query))
        await _waited(query.started)
        task.cancel()
    assert query.cancelled.is_set()
    assert query.closed.is_set()


def test_a_bound_that_the_engine_alone_would_break_is_refused() -> None:
    """The message says what is the least."""
    with pytest.raises(ValueError, match="at least 1280, got 100"):
        Limits(max_memory_mb=100)
    limits = Limits()
    parts = limits.engine_bytes + limits.all_bodies_bytes
    assert parts < limits.max_memory_mb * 2**20
