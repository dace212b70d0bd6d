"""A fixed number of threads for short jobs, any of which can be given up and replaced while its job hangs.

Used by `workers.py`. `concurrent.futures` has no such threads: one that hangs takes a place for ever, and is waited for
when the process ends.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Any


@dataclass(slots=True, eq=False)
class Job:
    """Work and its future; `replaced` once its thread has been given up."""

    work: Callable[[], Any]
    future: Future[Any] = field(default_factory=Future)
    replaced: bool = False
    ended: bool = False

    def run(self) -> None:
        """Do it, unless it was cancelled while it waited."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self.work())
        except BaseException as exc:  # noqa: BLE001  # it is raised where the future is awaited
            self.future.set_exception(exc)


class ReplaceableThreads:
    """`count` threads at work at any time, besides those that were given up and have not returned."""

    def __init__(self, *, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the threads."""
        for _ in range(self._count):
            self._start_one()

    def submit(self, work: Callable[[], Any]) -> Job:
        """Queue it, in the caller's context."""
        job = Job(partial(copy_context().run, work))
        self._jobs.put(job)
        return job

    def replace(self, job: Job) -> None:
        """Give up the thread that runs the job: another starts now, that one ends when it returns."""
        with self._lock:
            if job.ended or job.replaced:
                return
            job.replaced = True
        self._start_one()

    def close(self) -> None:
        """Let the threads end behind what they do now; none is waited for, and none holds up the process's end."""
        for _ in range(self._count):
            self._jobs.put(None)

    def _start_one(self) -> None:
        threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            with self._lock:
                job.ended = True
            if job.replaced:
                return
            del job  # holds texts while the thread waits otherwise
