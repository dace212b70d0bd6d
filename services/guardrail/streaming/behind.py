"""Judges released text by the sentence, behind its release, for detectors that read for meaning.

Used by `stream.py`, as a task of its own: what takes long holds nothing back, and sentences that become whole
meanwhile are judged together.
"""

import asyncio
from collections.abc import Awaitable, Callable

from servicekit.errors import BinnacleError
from services.guardrail.judging import Assessment
from services.guardrail.streaming.sentences import SentenceInbox

Found = tuple[Assessment, int]
"""What was found in a piece, and the place of its first character in all the text."""


class Behind:
    """The sentences of one stream; `assess` judges a piece, `news` is set whenever one was."""

    def __init__(self, assess: Callable[[str], Awaitable[Assessment]], news: asyncio.Event) -> None:
        self._assess = assess
        self._news = news
        self._sentences = SentenceInbox()
        self._more = asyncio.Event()
        self._final = False
        self._found: list[Found] = []
        self._failure: BinnacleError | None = None
        self.done = False

    def add(self, text: str, *, final: bool) -> None:
        """Text was released."""
        self._sentences.add(text)
        self._final = final
        self._more.set()

    async def run(self) -> None:
        """Judge until all is judged."""
        try:
            while True:
                final = self._final
                if not await self._judge(final=final):
                    if final:
                        break
                    await self._more.wait()
                    self._more.clear()
        except BinnacleError as exc:
            self._failure = exc
        self.done = True
        self._news.set()

    def take(self) -> list[Found]:
        """What was found since.

        Raises:
            BinnacleError: a piece could not be judged.
        """
        if self._failure is not None:
            raise self._failure
        found, self._found = self._found, []
        return found

    async def _judge(self, *, final: bool) -> bool:
        """Judge what is whole; whether there was something."""
        sentences = self._sentences.take(final=final)
        if sentences is None:
            return False
        self._found.append((await self._assess(sentences.text), sentences.offset))
        self._news.set()
        return True
