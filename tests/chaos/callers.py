"""Callers that ask until they are stopped, and remember what they were promised. Used by `sink.py`."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from binnacle_client.client import Binnacle
from servicekit.errors import BinnacleError

CALLERS = 6
_ANSWER_WITHIN_S = 30.0  # longer than any outage here: a call that gives up by itself would be in flight at no kill
_AGAIN_S = 0.2  # who is refused at once must not take the CPU that the restart needs
_QUESTIONS = ("When is bread baked?", "How much does mooring cost?", "What corrects for soft iron?")


@dataclass
class Callers:
    """What the callers of one run saw. A call is `in_flight_at_kills` if it was open when something was killed."""

    acknowledged: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    in_flight_at_kills: set[int] = field(default_factory=set)
    _open: set[int] = field(default_factory=set)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _stopped: bool = False

    def note_kill(self) -> None:
        """Something is killed now."""
        self.in_flight_at_kills |= self._open

    @asynccontextmanager
    async def asking(self, binnacle: Binnacle) -> AsyncIterator[None]:
        """Ask while the block runs; behind it every call has ended."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CALLERS):
                tasks.create_task(self._ask_on(binnacle))
            try:
                yield
            finally:
                self._stopped = True

    async def wait_for(self, answers: int, *, within_s: float) -> None:
        """Wait for that many more answers.

        Raises:
            TimeoutError: they did not come.
        """
        enough = len(self.acknowledged) + answers
        async with asyncio.timeout(within_s):
            while len(self.acknowledged) < enough:
                await asyncio.sleep(_AGAIN_S)

    async def _ask_on(self, binnacle: Binnacle) -> None:
        while not self._stopped:
            number = next(self._numbers)
            self._open.add(number)
            try:
                answer = await binnacle.ask(_QUESTIONS[number % len(_QUESTIONS)], timeout_s=_ANSWER_WITHIN_S)
            except BinnacleError as exc:
                self.failures.append(f"{exc.reason}: {exc.message}")
                await asyncio.sleep(_AGAIN_S)
            else:
                self.acknowledged.add(answer.request_id)
            finally:
                self._open.discard(number)
