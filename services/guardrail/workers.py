"""Runs every judging in a few threads and watches it, so that the event loop stays free and a hanging detector is left.

Owned by `bootstrap.py`, used by `checking.py`.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from servicekit.errors import BackendTimeout, Overloaded
from services.guardrail.examining import Attempt, Examination
from services.guardrail.threads import Job, ReplaceableThreads

T = TypeVar("T")

_RESERVE_SHARE, _MOST_RESERVE_S = 0.2, 0.05
"""Kept of the caller's deadline for redacting and recording what was decided."""
_LEAST_WAIT_S = 0.001


class Workers:
    """`threads` at work, `queue` checks waiting at most; beyond it a check is refused as overload."""

    def __init__(self, *, threads: int, queue: int) -> None:
        self._threads = ReplaceableThreads(count=threads, name="judge")
        self._threads.start()
        self._room = threads + queue
        self._busy: set[Job] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.close()

    async def run(self, work: Callable[[], T], *, chars: int, deadline_s: float | None) -> T:
        """The result of `work` over a text of `chars` characters.

        Raises:
            Overloaded: too many checks are waiting.
            BackendTimeout: not done in time; work that has begun ends by itself, its result unused.
        """
        job = self._submit(work)
        try:
            async with asyncio.timeout(deadline_s):
                result: T = await asyncio.wrap_future(job.future)
                return result
        except TimeoutError as exc:
            raise _too_late(chars) from exc

    async def examine(self, examination: Examination, *, deadline_s: float | None) -> None:
        """Have all steps answered, or given up when they are overdue or the caller's time is nearly over.

        Raises:
            Overloaded: too many checks are waiting.
            BackendTimeout: the caller's time is over.
        """
        loop = asyncio.get_running_loop()
        ends_s = None if deadline_s is None else loop.time() + deadline_s
        reserve_s = 0.0 if deadline_s is None else min(_MOST_RESERVE_S, deadline_s * _RESERVE_SHARE)
        stop_s = None if ends_s is None else ends_s - reserve_s
        try:
            while not examination.finished:
                await self._attempt(examination, stop_s)
        finally:
            examination.close()
        if ends_s is not None and loop.time() >= ends_s:
            raise _too_late(examination.chars)

    async def _attempt(self, examination: Examination, stop_s: float | None) -> None:
        """One thread's work: to the end, to a step that hangs, or until `stop_s`."""
        loop = asyncio.get_running_loop()
        attempt = Attempt()
        job = self._submit(partial(examination.run, attempt))
        done = asyncio.wrap_future(job.future)
        try:
            while not done.done():
                wait_s = max(_LEAST_WAIT_S, examination.patience_s(attempt))
                await asyncio.wait((done,), timeout=wait_s if stop_s is None else min(wait_s, stop_s - loop.time()))
                if done.done():
                    break
                if examination.give_up_overdue(attempt):
                    self._give_up(job)
                    return
                if stop_s is not None and loop.time() >= stop_s:
                    examination.close()
                    return
            done.result()
        finally:
            if not done.done() and not attempt.given_up:
                examination.close()
                done.cancel()  # one that waits never begins
                self._watch(examination, attempt, job)

    def _watch(self, examination: Examination, attempt: Attempt, job: Job) -> None:
        """Nobody waits any more for this thread: see whether it comes back all the same."""
        if job.future.done():
            return
        if examination.give_up_overdue(attempt):
            self._give_up(job)
            return
        wait_s = max(_LEAST_WAIT_S, examination.patience_s(attempt))
        asyncio.get_running_loop().call_later(wait_s, self._watch, examination, attempt, job)

    def _give_up(self, job: Job) -> None:
        self._busy.discard(job)
        self._threads.replace(job)

    def _submit(self, work: Callable[[], Any]) -> Job:
        """Start it; it counts as busy until its thread is free again or given up, whoever still waits for it."""
        if len(self._busy) >= self._room:
            raise Overloaded(f"{len(self._busy)} checks are being judged or wait; try again", retry_after_s=0.5)
        job = self._threads.submit(work)
        self._busy.add(job)
        job.future.add_done_callback(partial(self._ended, job))
        return job

    def _ended(self, job: Job, _: Future[Any]) -> None:
        self._busy.discard(job)


def _too_late(chars: int) -> BackendTimeout:
    return BackendTimeout(
        f"{chars} characters were not judged within the deadline; allow more time or send less",
        reason="CHECK_TIMEOUT",
    )
