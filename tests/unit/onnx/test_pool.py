"""The pool of the embedder: order by priority, bounds, cancellation, closing."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from servicekit.adapters.onnx.pool import Priority, PriorityPool
from servicekit.errors import BackendUnavailable, Overloaded


@pytest.fixture
async def pool() -> AsyncIterator[PriorityPool[str]]:
    """One thread; at most three queries and five documents wait."""
    opened: PriorityPool[str] = PriorityPool(
        threads=1, max_waiting={Priority.QUERY: 3, Priority.DOCUMENT: 5}, name="test"
    )
    opened.start()
    yield opened
    await asyncio.to_thread(opened.close)


class _Gate:
    """Holds the pool's one thread until opened."""

    def __init__(self, pool: PriorityPool[str]) -> None:
        self.opened = threading.Event()
        self.entered = threading.Event()
        self.future = pool.submit(self._hold, priority=Priority.QUERY)

    def _hold(self) -> str:
        self.entered.set()
        self.opened.wait(10)
        return "gate"

    async def reached(self) -> None:
        await asyncio.to_thread(self.entered.wait, 10)


async def test_queries_run_before_documents_that_came_first(pool: PriorityPool[str]) -> None:
    """The next free thread takes the query, and equal ones keep their order."""
    gate = _Gate(pool)
    await gate.reached()
    done: list[str] = []

    def note(name: str) -> str:
        done.append(name)
        return name

    jobs = [pool.submit(lambda n=n: note(f"document {n}"), priority=Priority.DOCUMENT) for n in range(2)]
    jobs += [pool.submit(lambda n=n: note(f"query {n}"), priority=Priority.QUERY) for n in range(2)]
    gate.opened.set()
    await asyncio.gather(gate.future, *jobs)
    assert done == ["query 0", "query 1", "document 0", "document 1"]


async def test_a_full_queue_refuses_and_recovers(pool: PriorityPool[str]) -> None:
    """Beyond the bound of its priority a job is refused; the other priority is not touched by it."""
    gate = _Gate(pool)
    await gate.reached()
    waiting = [pool.submit(lambda: "ok", priority=Priority.QUERY) for _ in range(3)]
    with pytest.raises(Overloaded):
        pool.submit(lambda: "no", priority=Priority.QUERY)
    waiting.append(pool.submit(lambda: "ok", priority=Priority.DOCUMENT))
    gate.opened.set()
    assert await asyncio.gather(*waiting) == ["ok"] * 4
    assert await pool.submit(lambda: "again", priority=Priority.QUERY) == "again"


async def test_a_cancelled_job_never_starts(pool: PriorityPool[str]) -> None:
    """What is cancelled while it waits costs nothing."""
    gate = _Gate(pool)
    await gate.reached()
    ran: list[str] = []
    job = pool.submit(lambda: ran.append("x") or "x", priority=Priority.DOCUMENT)  # type: ignore[func-returns-value]  # appends
    job.cancel()
    await asyncio.sleep(0)  # the loop hands the cancellation on in its next turn
    gate.opened.set()
    assert await pool.submit(lambda: "after", priority=Priority.DOCUMENT) == "after"
    assert ran == []


async def test_a_failure_reaches_the_caller_alone(pool: PriorityPool[str]) -> None:
    """A job that raises does not end the thread."""

    def fail() -> str:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await pool.submit(fail, priority=Priority.QUERY)
    assert await pool.submit(lambda: "fine", priority=Priority.QUERY) == "fine"


async def test_closing_fails_what_waits(pool: PriorityPool[str]) -> None:
    """Jobs in the queue fail at once, later ones are refused, and the running one ends in peace."""
    gate = _Gate(pool)
    await gate.reached()
    waiting = pool.submit(lambda: "never", priority=Priority.DOCUMENT)
    closing = asyncio.ensure_future(asyncio.to_thread(pool.close))
    with pytest.raises(BackendUnavailable):
        await waiting
    gate.opened.set()
    await closing
    assert await gate.future == "gate"
    with pytest.raises(BackendUnavailable):
        pool.submit(lambda: "late", priority=Priority.QUERY)
