"""Judges an answer while it is made: what may be shown comes out behind a small hold-back window.

Made by `checks.py` for each call. Detectors of what can be replaced, and of leaks, judge text before its release, those
that read for meaning by the sentence behind it, those that need the whole answer at its end. A late block ends the
stream; what was released before is for the caller to retract.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from servicekit.domain.verdict import Action
from services.guardrail.judging import Assessment
from services.guardrail.streaming.arrivals import Arrivals
from services.guardrail.streaming.behind import Behind
from services.guardrail.streaming.companions import Companions
from services.guardrail.streaming.roles import Role
from services.guardrail.streaming.streamed import EndedStream, FoundVerdicts, ReleasedText, StreamedText, StreamEvent
from services.guardrail.streaming.told import Told
from services.guardrail.streaming.window import Piece, View, Window

_CALLER_ENDS_WITHIN_S = 5.0


class Means(Protocol):
    """What a stream needs of the service around it, its policy and its conversation known."""

    def asks(self, role: Role) -> bool:
        """Whether the policy has any detector of this role."""
        ...

    async def assess(self, text: str, role: Role) -> Assessment:
        """What the detectors of a role find."""
        ...

    async def redact(self, piece: Piece) -> str:
        """The piece with what was found replaced."""
        ...

    async def restore(self, text: str) -> str:
        """The text with values put back; empty where it is the same, or not wanted."""
        ...

    def now_s(self) -> float:
        """The time, of a clock that only goes forward."""
        ...


@dataclass(slots=True)
class Figures:
    """What a stream took: the first text's delay in seconds and tokens, all time spent judging."""

    first_held_s: float | None = None
    first_held_tokens: int = 0
    judging_s: float = 0.0
    groundedness: float | None = None


class Stream:
    """One answer; `told` and `figures` may be read at any time, `chars` are those that came."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._news = asyncio.Event()
        self._arrivals = Arrivals(self._news, means.now_s)
        self._window = Window()
        self._behind = Behind(self._assessing(Role.BEHIND), self._news)
        self._asks_behind = means.asks(Role.BEHIND)
        self._pieces: list[str] = []
        self._ended = False
        self.told = Told()
        self.figures = Figures()

    @property
    def chars(self) -> int:
        """Characters of the answer that came."""
        return self._arrivals.chars

    async def events(
        self, texts: AsyncIterator[StreamedText], end: Callable[[], Awaitable[EndedStream]]
    ) -> AsyncGenerator[StreamEvent, None]:
        """Released text and verdicts, until all was released or something was blocked; then what `end` makes of it.

        Texts that end without a final one were broken off: what was held back then stays so.

        Raises:
            BinnacleError: whatever the texts raise, or a text could not be judged in time.
        """
        async with Companions() as companions:
            companions.start(self._arrivals.read(texts))
            if self._asks_behind:
                companions.start(self._behind.run())
            while not self._is_over:
                await self._news.wait()
                self._news.clear()
                for event in await self._step():
                    yield event
            for event in await self._whole():
                yield event
            yield await end()
            await self._arrivals.finish(within_s=_CALLER_ENDS_WITHIN_S)

    @property
    def _is_blocked(self) -> bool:
        return self.told.action is Action.BLOCK

    @property
    def _is_over(self) -> bool:
        return self._is_blocked or (self._ended and (self._behind.done or not self._asks_behind))

    async def _step(self) -> list[StreamEvent]:
        """Look at all that is new: verdicts from behind, then text that came."""
        final, closed = self._arrivals.final, self._arrivals.closed
        self._window.add(self._arrivals.take())
        events = self._found_behind()
        view = None if self._is_blocked else self._window.view(final=final)
        if view is not None:
            events += await self._judged(view)
        if not self._ended and (final or closed):
            self._ended = True
            self._behind.add("", final=True)
        return events

    async def _judged(self, view: View) -> list[StreamEvent]:
        after = self._window.released
        assessment = await self._assess(view.text, Role.EARLY)
        piece = None
        if assessment.action is not Action.BLOCK:
            piece = self._window.release(view, assessment.replaceable)
        events = self._found(assessment, offset=view.offset, after=after, before=self._window.released)
        if piece is not None and not self._is_blocked:
            events.append(await self._released(piece))
        return events

    async def _released(self, piece: Piece) -> ReleasedText:
        text = await self._means.redact(piece)
        restored = await self._means.restore(text)
        self._note_first(piece)
        self._pieces.append(piece.text)
        if self._asks_behind:
            self._behind.add(piece.text, final=False)
        return ReleasedText(text, len(piece.text), restored)

    def _found_behind(self) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        for assessment, offset in self._behind.take():
            events += self._found(assessment, offset=offset, after=-1, before=self._window.arrived)
        return events

    async def _whole(self) -> list[StreamEvent]:
        """Judge the answer as a whole, once all of it was released."""
        if self._is_blocked or not self._arrivals.final or not self._pieces or not self._means.asks(Role.WHOLE):
            return []
        text = "".join(self._pieces)
        assessment = await self._assess(text, Role.WHOLE)
        self.figures.groundedness = assessment.groundedness
        return self._found(assessment, offset=0, after=-1, before=len(text))

    def _found(self, assessment: Assessment, *, offset: int, after: int, before: int) -> list[StreamEvent]:
        new = self.told.new(assessment.verdicts, offset=offset, after=after, before=before)
        return [FoundVerdicts(new)] if new else []

    def _assessing(self, role: Role) -> Callable[[str], Awaitable[Assessment]]:
        async def assess(text: str) -> Assessment:
            return await self._assess(text, role)

        return assess

    async def _assess(self, text: str, role: Role) -> Assessment:
        start_s = self._means.now_s()
        try:
            return await self._means.assess(text, role)
        finally:
            self.figures.judging_s += self._means.now_s() - start_s

    def _note_first(self, piece: Piece) -> None:
        figures, arrivals = self.figures, self._arrivals
        if figures.first_held_s is None and arrivals.first_s is not None:
            figures.first_held_s = self._means.now_s() - arrivals.first_s
            figures.first_held_tokens = max(0, arrivals.tokens - arrivals.tokens_of(len(piece.text)))
            arrivals.forget_marks()
