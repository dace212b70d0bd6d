"""A few threads that run short jobs by priority, awaited from the event loop.

Used by `embedder.py`: a query waits for at most one document text per thread, however long a bulk load is.
"""

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

from servicekit.errors import BackendUnavailable, Overloaded

Result = TypeVar("Result")


class Priority(IntEnum):
    """Lower runs first; equal ones run in the order of their submission."""

    QUERY = 0
    DOCUMENT = 1


@dataclass(order=True, slots=True)
class _Job(Generic[Result]):
    priority: Priority
    number: int
    work: Callable[[], Result] = field(compare=False)
    future: Future[Result] = field(compare=False)

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self.work())
        except BaseException as exc:  # noqa: BLE001  # it is raised where the future is awaited
            self.future.set_exception(exc)


class PriorityPool(Generic[Result]):
    """Start with `start()`, end with `close()`; `waiting` jobs per priority are bounded."""

    def __init__(self, *, threads: int, max_waiting: dict[Priority, int], name: str) -> None:
        self._max_waiting = max_waiting
        self._jobs: list[_Job[Result]] = []
        self._waiting = dict.fromkeys(Priority, 0)
        self._numbers = itertools.count()
        self._wake = threading.Condition()
        self._open = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True) for number in range(threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        self._open = True
        for thread in self._threads:
            thread.start()

    @property
    def is_open(self) -> bool:
        """Whether jobs are taken."""
        return self._open

    def submit(self, work: Callable[[], Result], *, priority: Priority) -> asyncio.Future[Result]:
        """Queue a job for the running event loop to await; a cancelled future's job never starts.

        Raises:
            Overloaded: too many jobs of this priority wait.
            BackendUnavailable: the pool is closed.
        """
        future: Future[Result] = Future()
        with self._wake:
            if not self._open:
                raise BackendUnavailable("the embedder is closed", reason="EMBEDDER_CLOSED")
            if self._waiting[priority] >= self._max_waiting[priority]:
                raise Overloaded(
                    f"{self._waiting[priority]} texts wait to be embedded, which is the bound: try again",
                    reason="EMBEDDER_OVERLOADED",
                )
            self._waiting[priority] += 1
            heapq.heappush(self._jobs, _Job(priority, next(self._numbers), work, future))
            self._wake.notify()
        return asyncio.wrap_future(future)

    def close(self) -> None:
        """Refuse new jobs, fail those that wait, and return when the threads have ended (blocking)."""
        with self._wake:
            self._open = False
            waiting, self._jobs = self._jobs, []
            self._wake.notify_all()
        for job in waiting:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(BackendUnavailable("the embedder is closing", reason="EMBEDDER_CLOSED"))
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            job.run()
            del job  # holds a text and a vector while the thread waits otherwise

    def _next(self) -> _Job[Result] | None:
        with self._wake:
            while self._open and not self._jobs:
                self._wake.wait()
            if not self._open:
                return None
            job = heapq.heappop(self._jobs)
            self._waiting[job.priority] -= 1
            return job
