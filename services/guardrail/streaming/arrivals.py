"""Takes the texts of a stream in while others are judged, no more of them than may wait.

Used by `stream.py`; filled by a task of its own, so that all that has come by then is judged together.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from servicekit.errors import BinnacleError
from services.guardrail.streaming.streamed import StreamedText

MAX_WAITING_CHARS = 131_072
_MAX_MARKS = 20_000


class Arrivals:
    """What has come and was not taken; `news` is set whenever there is something to look at."""

    def __init__(self, news: asyncio.Event, now_s: Callable[[], float]) -> None:
        self._news = news
        self._now_s = now_s
        self._room = asyncio.Event()
        self._waiting: list[str] = []
        self._waiting_chars = 0
        self._failure: Exception | None = None
        self._over = False
        self._end = asyncio.Event()
        self.chars = 0
        self.tokens = 0
        self.first_s: float | None = None
        self.final = False
        self.closed = False
        self._marks: list[tuple[int, int]] = []

    async def read(self, texts: AsyncIterator[StreamedText]) -> None:
        """Take all texts in; an error of theirs is raised by `take`, behind nothing."""
        try:
            async for text in texts:
                await self._put(text)
        except BinnacleError as exc:
            self._failure = exc
        self.closed = True
        self._end.set()
        self._news.set()

    def take(self) -> str:
        """All that has come.

        Raises:
            BinnacleError: the texts broke off with it.
        """
        if self._failure is not None:
            raise self._failure
        text = "".join(self._waiting)
        self._waiting.clear()
        self._waiting_chars = 0
        self._room.set()
        return text

    async def finish(self, *, within_s: float) -> None:
        """Hear the caller out, without listening: a call that ends while it writes loses what it was told."""
        self._over = True
        self._room.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._end.wait()

    def tokens_of(self, chars: int) -> int:
        """How many whole tokens the first `chars` characters hold."""
        return max((tokens for end, tokens in self._marks if end <= chars), default=0)

    def forget_marks(self) -> None:
        """Nobody will ask any more which token ended where."""
        self._marks.clear()

    async def _put(self, text: StreamedText) -> None:
        while self._waiting_chars > MAX_WAITING_CHARS and not self._over:
            self._room.clear()
            await self._room.wait()
        if self._over:
            return
        if text.text and self.first_s is None:
            self.first_s = self._now_s()
        self.chars += len(text.text)
        self.tokens += text.token_count
        if len(self._marks) < _MAX_MARKS:
            self._marks.append((self.chars, self.tokens))
        self._waiting.append(text.text)
        self._waiting_chars += len(text.text)
        self.final = self.final or text.final
        self._news.set()
