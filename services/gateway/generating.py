"""Reads the generation while what came before is judged, and releases text by the sentence.

Called by `answering.py` as the last stage. One reader task fills the inbox; the judge takes every sentence that is
complete by then, so that a slow check costs fewer checks, not a slower stream.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from opentelemetry.trace import Span

from servicekit.domain.generation import TokenEvent
from servicekit.domain.verdict import Action
from servicekit.errors import BackendUnavailable, BinnacleError
from servicekit.rpc.deadline import Budget
from servicekit.telemetry import genai
from servicekit.telemetry.tracing import LatePart
from services.gateway.backends import GenerationRequest, Generator, Guard
from services.gateway.grouping import task_group
from services.gateway.record import Interaction
from services.gateway.release import HoldBack, Piece, relocate
from services.gateway.standing_in import MISSING, blocked, cause_of, refused
from services.gateway.telling import Telling

CHECK_SHARE = 0.5
BROKEN = "REDACTION_BROKE_SCHEMA"


@dataclass(frozen=True, slots=True)
class Generating:
    """The stage; text that could not be judged is released only where `fail_open` says so."""

    generator: Generator
    guard: Guard
    fail_open: bool

    async def run(self, interaction: Interaction, work: Budget, tell: Telling) -> None:
        """Generate and release until the end.

        Raises:
            StandIn: a piece was blocked, or the generator or the guardrail is away before the end is safe.
            BackendUnavailable, BackendTimeout: the generator broke off after text had been released.
        """
        try:
            if interaction.route.guard:
                await self._judged(interaction, work, tell)
            else:
                await self._read(interaction, work, on_token=tell.token)
        except MISSING as error:
            if interaction.released:
                raise
            raise refused(interaction, cause_of("GENERATOR", error)) from error
        if interaction.generated is not None:
            interaction.degradations.extend(interaction.generated.degradations)

    async def _judged(self, interaction: Interaction, work: Budget, tell: Telling) -> None:
        inbox = Inbox()
        judging = _Judging(self.guard, self.fail_open, interaction, work, tell)
        try:
            async with task_group() as group:
                group.create_task(self._fill(inbox, interaction, work))
                final = False
                while not final:
                    text, final = await inbox.next_piece()
                    await judging.release(text, final=final)
            await judging.finish()
        finally:
            judging.note_timing()
        interaction.citations = relocate(interaction.citations, judging.pieces)

    async def _fill(self, inbox: "Inbox", interaction: Interaction, work: Budget) -> None:
        """Read to the end; what breaks the stream off is found by the judge behind the text that came before."""
        failure: BinnacleError | None = None
        try:
            await self._read(interaction, work, on_token=inbox.put)
        except BinnacleError as error:
            failure = error
        inbox.end(failure)

    async def _read(
        self, interaction: Interaction, work: Budget, *, on_token: Callable[[str], Awaitable[None]]
    ) -> None:
        request = _request(interaction)
        with interaction.stage("generate") as span:
            try:
                async with aclosing(self.generator.generate(request, timeout_s=work.remaining_s())) as stream:
                    async for event in stream:
                        if isinstance(event, TokenEvent):
                            interaction.tokens_seen += event.token_count
                            await on_token(event.text)
                        else:
                            interaction.generated = event
                            interaction.citations = event.citations
            finally:
                _describe(span, interaction)
        if interaction.generated is None:
            raise BackendUnavailable("the generator's stream ended without its end", reason="STREAM_BROKEN")


class Inbox:
    """Text between the reader and the judge; unbounded but by what a generation may hold."""

    def __init__(self) -> None:
        self._hold = HoldBack()
        self._news = asyncio.Event()
        self._ended = False
        self._failure: BinnacleError | None = None

    async def put(self, text: str) -> None:
        """Add text that arrived."""
        self._hold.feed(text)
        if self._hold.ready:
            self._news.set()

    def end(self, failure: BinnacleError | None) -> None:
        """No more will arrive."""
        self._ended = True
        self._failure = failure
        self._news.set()

    async def next_piece(self) -> tuple[str, bool]:
        """The sentences complete by now, and whether they end the answer; waits for one at least.

        Raises:
            BinnacleError: what broke the stream off, once all complete sentences are taken.
        """
        while not self._hold.ready and not self._ended:
            self._news.clear()
            await self._news.wait()
        if self._hold.ready and not self._whole:
            return self._hold.take(), False
        if self._failure is not None:
            raise self._failure
        rest = self._hold.take_rest()
        return rest, not self._hold.held

    @property
    def _whole(self) -> bool:
        """All of the answer's rest is here, so that it can be judged as one piece."""
        return self._ended and self._failure is None


class _Judging:
    """Judges pieces in order and releases what may go."""

    def __init__(self, guard: Guard, fail_open: bool, interaction: Interaction, work: Budget, tell: Telling) -> None:
        self._guard = guard
        self._fail_open = fail_open
        self._interaction = interaction
        self._work = work
        self._tell = tell
        self._chunk_texts = [chunk.text for chunk in interaction.context_chunks]
        self._first_start_s: float | None = None
        self._spent_s = 0.0
        self._unguarded = False
        self._part = LatePart("check_output")
        self.pieces: list[Piece] = []

    async def release(self, text: str, *, final: bool) -> None:
        """Judge one piece and tell the caller what is left of it; blank text needs no judgement."""
        released = await self._judge(text, final=final) if text.strip() else text
        self.pieces.append(Piece(text, released))
        await self._tell.verdicts()
        if released and self._interaction.output_schema is None:
            await self._tell.token(released)

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
        """Add one timing for all checks, and end their span."""
        self._part.end()
        if self._first_start_s is not None:
            self._interaction.add_timing("check_output", self._first_start_s, self._spent_s)

    async def _judge(self, text: str, *, final: bool) -> str:
        interaction, clock = self._interaction, self._interaction.clock
        start_s = clock.monotonic_s()
        self._first_start_s = start_s if self._first_start_s is None else self._first_start_s
        try:
            with self._part.piece():
                judgement = await self._guard.check_output(
                    text,
                    piece=len(self.pieces),
                    final=final,
                    chunk_texts=self._chunk_texts,
                    context=interaction.context,
                    timeout_s=self._work.remaining_s() * CHECK_SHARE,
                )
        except MISSING as error:
            cause = cause_of("GUARDRAIL", error)
            if not self._fail_open:
                raise refused(interaction, cause) from error
            if not self._unguarded:
                interaction.degrade("unguarded_output", cause)
            self._unguarded = interaction.unguarded = True
            return text
        finally:
            self._spent_s += clock.monotonic_s() - start_s
        interaction.note_verdicts(judgement.verdicts, judgement.policy_version)
        if judgement.action is Action.BLOCK:
            raise blocked("BLOCKED_OUTPUT")
        return judgement.text


def _describe(span: Span, interaction: Interaction) -> None:
    """Say on the span which model was asked and what that took, never a text."""
    if not span.is_recording():
        return
    span.set_attribute(genai.OPERATION_NAME, genai.OPERATION_CHAT)
    span.set_attribute(genai.REQUEST_MODEL, interaction.model)
    span.set_attribute(genai.USAGE_INPUT_TOKENS, interaction.usage.input_tokens)
    span.set_attribute(genai.USAGE_OUTPUT_TOKENS, interaction.usage.output_tokens)
    if interaction.generated is not None:
        span.set_attribute(genai.RESPONSE_FINISH_REASONS, (interaction.generated.finish_reason.value,))


def _request(interaction: Interaction) -> GenerationRequest:
    return GenerationRequest(
        request_id=interaction.request_id,
        question=interaction.asked or "",
        chunks=interaction.context_chunks,
        history=interaction.history,
        model=interaction.question.model or interaction.route.model,
        sampling=interaction.question.sampling,
        output_schema=interaction.question.output_schema,
        want_logprobs=interaction.question.want_logprobs,
    )
