"""Sends a generation through the guardrail's stream while it is made, and tells the caller what comes out.

Used by `generating.py`. One task fills the inbox, the guardrail's stream empties it: whatever has come by then goes as
one text, so that a busy guardrail costs fewer messages, not a slower stream.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from servicekit.domain.generation import TokenEvent
from servicekit.domain.verdict import Action
from servicekit.errors import BackendTimeout, BinnacleError
from servicekit.rpc.deadline import Budget
from servicekit.telemetry.tracing import LatePart
from services.gateway.backends import Found, Guard, GuardEvent, Released, StreamedText, StreamEnd
from services.gateway.record import Interaction
from services.gateway.release import Piece
from services.gateway.standing_in import MISSING, Missing, blocked, cause_of, refused
from services.gateway.telling import Telling

END_SHARE = 0.5
SLACK_S = 0.25
MAX_SENT_CHARS = 16_384
BROKEN = "REDACTION_BROKE_SCHEMA"


class Inbox:
    """All text that the generator gave so far; unbounded but by what a generation may hold."""

    def __init__(self) -> None:
        self._text = ""
        self._tokens = 0
        self._news = asyncio.Event()
        self._ended = False
        self._failure: BinnacleError | None = None
        self.on_end: Callable[[], None] = lambda: None

    async def put(self, token: TokenEvent) -> None:
        """Add text that arrived."""
        self._text += token.text
        self._tokens += token.token_count
        self._news.set()

    def end(self, failure: BinnacleError | None) -> None:
        """No more will arrive."""
        self._ended = True
        self._failure = failure
        self._news.set()
        self.on_end()

    @property
    def ended(self) -> bool:
        """Whether no more will arrive."""
        return self._ended

    async def texts(self, *, start: int = 0) -> AsyncGenerator[StreamedText, None]:
        """The text from `start` on, as it comes, the last of it final; none is where the generation broke off."""
        sent, sent_tokens = start, 0
        while True:
            while len(self._text) == sent and not self._ended:
                self._news.clear()
                await self._news.wait()
            text = self._text[sent : sent + MAX_SENT_CHARS]
            sent += len(text)
            final = self._ended and self._failure is None and sent == len(self._text)
            tokens, sent_tokens = self._tokens - sent_tokens, self._tokens
            if text or final:
                yield StreamedText(text, tokens, final)
            if final or (self._ended and sent == len(self._text)):
                return

    def raise_failure(self) -> None:
        """Raise what broke the generation off, if anything did."""
        if self._failure is not None:
            raise self._failure


class Guarding:
    """One answer on its way through the guardrail; `pieces` say what became of which text."""

    def __init__(self, guard: Guard, interaction: Interaction, work: Budget, tell: Telling, *, fail_open: bool) -> None:
        self._guard = guard
        self._interaction = interaction
        self._work = work
        self._tell = tell
        self._fail_open = fail_open
        self._part = LatePart("check_output")
        self._first_s: float | None = None
        self._end: StreamEnd | None = None
        self._wait: asyncio.Timeout | None = None
        self._done_chars = 0
        self._unsent = ""
        self.pieces: list[Piece] = []

    async def run(self, inbox: Inbox) -> None:
        """Release until the end.

        Raises:
            StandIn: something was blocked, or the guardrail is away and fails closed.
            BinnacleError: what broke the generation off, behind the text that came before.
        """
        inbox.on_end = self._bound_end
        try:
            await self._guarded(inbox)
        except _GuardAwayError as away:
            cause = cause_of("GUARDRAIL", away.error)
            if not self._fail_open:
                raise refused(self._interaction, cause) from away.error
            self._interaction.degrade("unguarded_output", cause)
            self._interaction.unguarded = True
            await self._unguarded(inbox)
        inbox.raise_failure()

    async def finish(self) -> None:
        """Release an answer by a schema, which is of no use in parts.

        Raises:
            StandIn: what was redacted broke the schema.
        """
        schema = self._interaction.output_schema
        if schema is None:
            return
        answer = "".join(piece.released for piece in self.pieces)
        redacted = any(piece.source != piece.released for piece in self.pieces)
        if redacted and await asyncio.to_thread(schema.violation, answer) is not None:
            self._interaction.degrade("blocked_answer", BROKEN)
            raise blocked(BROKEN)
        await self._tell.token(answer)

    def note_timing(self) -> None:
        """Add one timing for all of it, and end its span."""
        self._part.end()
        if self._first_s is None:
            return
        now_s = self._interaction.clock.monotonic_s()
        spent_s = now_s - self._first_s if self._end is None else self._end.judging_s
        self._interaction.add_timing("check_output", self._first_s, spent_s)

    async def _guarded(self, inbox: Inbox) -> None:
        interaction = self._interaction
        with self._part.piece():
            events = self._guard.check_stream(
                self._sent(inbox),
                chunk_texts=[chunk.text for chunk in interaction.context_chunks],
                context=interaction.context,
                restore=interaction.question.restore_pii and interaction.output_schema is None,
                timeout_s=self._work.remaining_s() + SLACK_S,
            )
            async with aclosing(events):
                while (event := await self._next(events, inbox)) is not None:
                    await self._take(event)

    async def _sent(self, inbox: Inbox) -> AsyncGenerator[StreamedText, None]:
        """What goes to the guardrail, kept until it is released."""
        async for text in inbox.texts():
            if self._first_s is None:
                self._first_s = self._interaction.clock.monotonic_s()
            self._unsent += text.text
            yield text

    async def _next(self, events: AsyncGenerator[GuardEvent, None], inbox: Inbox) -> GuardEvent | None:
        """The next event; once the generation is over, the guardrail has a share of the time that remains."""
        try:
            async with asyncio.timeout(None) as self._wait:
                if inbox.ended:
                    self._bound_end()
                return await anext(events, None)
        except TimeoutError as error:
            late = BackendTimeout("the guardrail did not come to its end in time", reason="GUARDRAIL_LATE")
            raise _GuardAwayError(late) from error
        except MISSING as error:
            raise _GuardAwayError(error) from error
        finally:
            self._wait = None

    def _bound_end(self) -> None:
        if self._wait is not None and self._wait.when() is None:
            self._wait.reschedule(asyncio.get_running_loop().time() + self._work.remaining_s() * END_SHARE)

    async def _take(self, event: GuardEvent) -> None:
        interaction = self._interaction
        match event:
            case Released(text, source_chars, restored):
                source, self._unsent = self._unsent[:source_chars], self._unsent[source_chars:]
                await self._release(source, text, restored)
            case Found(verdicts):
                interaction.note_verdicts(verdicts, "")
                await self._tell.verdicts()
            case StreamEnd():
                self._end = event
                interaction.note_verdicts((), event.policy_version)
                if event.action is Action.BLOCK:
                    raise blocked("BLOCKED_OUTPUT")

    async def _release(self, source: str, text: str, restored: str = "") -> None:
        self._done_chars += len(source)
        last = self.pieces[-1] if self.pieces else None
        if last is not None and source == text and last.source == last.released:
            self.pieces[-1] = Piece(last.source + source, last.released + text)
        else:
            self.pieces.append(Piece(source, text))
        if text and self._interaction.output_schema is None:
            await self._tell.token(text, restored=restored or None)

    async def _unguarded(self, inbox: Inbox) -> None:
        async with aclosing(inbox.texts(start=self._done_chars)) as texts:
            async for text in texts:
                await self._release(text.text, text.text)


class _GuardAwayError(Exception):
    """The guardrail is away, or did not answer in time."""

    def __init__(self, error: Missing) -> None:
        super().__init__(error.reason)
        self.error = error
