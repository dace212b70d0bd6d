"""Reads the generation to its end, through the guardrail or, on routes without a guard, as it comes.

Called by `answering.py` as the last stage.
"""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from opentelemetry.trace import Span

from servicekit.domain.generation import TokenEvent
from servicekit.errors import BackendUnavailable, BinnacleError
from servicekit.rpc.deadline import Budget
from servicekit.telemetry import genai
from services.gateway.backends import GenerationRequest, Generator, Guard
from services.gateway.grouping import task_group
from services.gateway.guarding import Guarding, Inbox
from services.gateway.record import Interaction
from services.gateway.release import relocate
from services.gateway.standing_in import MISSING, cause_of, refused
from services.gateway.telling import Telling


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
                await self._read(interaction, work, on_token=lambda token: tell.token(token.text))
        except MISSING as error:
            if interaction.released:
                raise
            raise refused(interaction, cause_of("GENERATOR", error)) from error
        if interaction.generated is not None:
            interaction.degradations.extend(interaction.generated.degradations)

    async def _judged(self, interaction: Interaction, work: Budget, tell: Telling) -> None:
        inbox = Inbox()
        guarding = Guarding(self.guard, interaction, work, tell, fail_open=self.fail_open)
        try:
            async with task_group() as group:
                group.create_task(self._fill(inbox, interaction, work))
                await guarding.run(inbox)
            await guarding.finish()
        finally:
            guarding.note_timing()
        interaction.citations = relocate(interaction.citations, guarding.pieces)

    async def _fill(self, inbox: Inbox, interaction: Interaction, work: Budget) -> None:
        """Read to the end; what breaks the stream off is raised behind the text that came before."""
        failure: BinnacleError | None = None
        try:
            await self._read(interaction, work, on_token=inbox.put)
        except BinnacleError as error:
            failure = error
        inbox.end(failure)

    async def _read(
        self, interaction: Interaction, work: Budget, *, on_token: Callable[[TokenEvent], Awaitable[None]]
    ) -> None:
        request = _request(interaction)
        with interaction.stage("generate") as span:
            try:
                async with aclosing(self.generator.generate(request, timeout_s=work.remaining_s())) as stream:
                    async for event in stream:
                        if isinstance(event, TokenEvent):
                            interaction.tokens_seen += event.token_count
                            await on_token(event)
                        else:
                            interaction.generated = event
                            interaction.citations = event.citations
            finally:
                _describe(span, interaction)
        if interaction.generated is None:
            raise BackendUnavailable("the generator's stream ended without its end", reason="STREAM_BROKEN")


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
