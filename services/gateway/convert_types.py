"""The shared messages of `binnacle.type.v1` ↔ domain types. Pure; used by the other converters and `clients.py`."""

from collections.abc import Iterable, Mapping

from binnacle.type.v1 import chunk_pb2, generation_pb2, text_pb2, verdict_pb2
from servicekit.domain.generation import Attempt, Cost, Degradation, FinishReason, Usage
from servicekit.domain.prompt import Message, PromptRef, Role, Sampling
from servicekit.domain.verdict import Action, Span, Surface, Verdict
from services.gateway.answer import ChunkUse, StageTiming
from services.gateway.backends import AnswerCitation, FoundChunk

_MICROSECONDS = 1_000_000

ACTIONS: Mapping[int, Action] = {
    verdict_pb2.ACTION_ALLOW: Action.ALLOW,
    verdict_pb2.ACTION_FLAG: Action.FLAG,
    verdict_pb2.ACTION_REDACT: Action.REDACT,
    verdict_pb2.ACTION_BLOCK: Action.BLOCK,
}
SURFACES: Mapping[int, Surface] = {
    verdict_pb2.SURFACE_INPUT: Surface.INPUT,
    verdict_pb2.SURFACE_RETRIEVED: Surface.RETRIEVED,
    verdict_pb2.SURFACE_OUTPUT: Surface.OUTPUT,
}
FINISH_REASONS: Mapping[int, FinishReason] = {
    generation_pb2.FINISH_REASON_STOP: FinishReason.STOP,
    generation_pb2.FINISH_REASON_LENGTH: FinishReason.LENGTH,
    generation_pb2.FINISH_REASON_CONTENT_FILTER: FinishReason.CONTENT_FILTER,
    generation_pb2.FINISH_REASON_CANCELLED: FinishReason.CANCELLED,
    generation_pb2.FINISH_REASON_ERROR: FinishReason.ERROR,
    generation_pb2.FINISH_REASON_DEADLINE: FinishReason.DEADLINE,
}
ROLES = {
    text_pb2.ROLE_SYSTEM: Role.SYSTEM,
    text_pb2.ROLE_USER: Role.USER,
    text_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
}
_ACTION_NUMBERS = {action: verdict_pb2.Action.ValueType(number) for number, action in ACTIONS.items()}
_SURFACE_NUMBERS = {surface: verdict_pb2.Surface.ValueType(number) for number, surface in SURFACES.items()}
_FINISH_REASON_NUMBERS = {
    reason: generation_pb2.FinishReason.ValueType(number) for number, reason in FINISH_REASONS.items()
}
_ROLE_NUMBERS = {role: number for number, role in ROLES.items()}


def span_of(message: text_pb2.Span) -> Span:
    """A span; a reversed one, which only a faulty sender makes, becomes empty."""
    return Span(message.start, max(message.start, message.end))


def span_message(span: Span) -> text_pb2.Span:
    """A span as it travels."""
    return text_pb2.Span(start=span.start, end=span.end)


def action_of(number: int) -> Action:
    """An action; an unknown one is read as the strongest, so that nothing slips through."""
    return ACTIONS.get(number, Action.BLOCK)


def finish_reason_of(number: int) -> FinishReason:
    """A finish reason; an unknown one counts as a stop."""
    return FINISH_REASONS.get(number, FinishReason.STOP)


def finish_reason_number(reason: FinishReason) -> "generation_pb2.FinishReason.ValueType":
    """A finish reason as it travels."""
    return _FINISH_REASON_NUMBERS[reason]


def verdict_of(message: verdict_pb2.Verdict) -> Verdict:
    """A verdict."""
    return Verdict(
        surface=SURFACES.get(message.surface, Surface.INPUT),
        detector=message.detector,
        detector_version=message.detector_version,
        action=action_of(message.action),
        score=message.score,
        rule=message.rule,
        span=span_of(message.span) if message.HasField("span") else None,
        message=message.message,
        policy_version=message.policy_version,
        chunk_id=message.chunk_id,
        shadow=message.shadow,
    )


def verdict_message(verdict: Verdict) -> verdict_pb2.Verdict:
    """A verdict as it travels."""
    return verdict_pb2.Verdict(
        surface=_SURFACE_NUMBERS[verdict.surface],
        detector=verdict.detector,
        detector_version=verdict.detector_version,
        action=_ACTION_NUMBERS[verdict.action],
        score=verdict.score,
        rule=verdict.rule,
        span=None if verdict.span is None else span_message(verdict.span),
        message=verdict.message,
        policy_version=verdict.policy_version,
        chunk_id=verdict.chunk_id,
        shadow=verdict.shadow,
    )


def usage_of(message: generation_pb2.Usage) -> Usage:
    """Token counts."""
    return Usage(message.input_tokens, message.output_tokens, message.cached_tokens, message.estimated)


def usage_message(usage: Usage) -> generation_pb2.Usage:
    """Token counts as they travel."""
    return generation_pb2.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        estimated=usage.estimated,
    )


def attempt_of(message: generation_pb2.Attempt) -> Attempt:
    """One try at an engine."""
    first_token_us = message.time_to_first_token_us
    return Attempt(
        number=message.number,
        model_alias=message.model_alias,
        model=message.model,
        revision=message.revision,
        engine=message.engine,
        usage=usage_of(message.usage),
        cost=Cost(message.cost_microusd, message.price_version),
        duration_s=message.duration_us / _MICROSECONDS,
        time_to_first_token_s=first_token_us / _MICROSECONDS if first_token_us else None,
        finish_reason=finish_reason_of(message.finish_reason),
        error_reason=message.error_reason,
        adapter=message.adapter,
        choice=message.choice,
        queue_s=message.queue_us / _MICROSECONDS,
    )


def attempt_message(attempt: Attempt) -> generation_pb2.Attempt:
    """One try at an engine as it travels."""
    return generation_pb2.Attempt(
        number=attempt.number,
        model_alias=attempt.model_alias,
        model=attempt.model,
        revision=attempt.revision,
        engine=attempt.engine,
        adapter=attempt.adapter,
        usage=usage_message(attempt.usage),
        cost_microusd=attempt.cost.microusd,
        price_version=attempt.cost.price_version,
        duration_us=round(attempt.duration_s * _MICROSECONDS),
        time_to_first_token_us=round((attempt.time_to_first_token_s or 0) * _MICROSECONDS),
        finish_reason=finish_reason_number(attempt.finish_reason),
        error_reason=attempt.error_reason,
        choice=attempt.choice,
        queue_us=round(attempt.queue_s * _MICROSECONDS),
    )


def prompt_of(message: generation_pb2.PromptRef) -> PromptRef:
    """A prompt template's identity."""
    return PromptRef(message.prompt_id, message.version, message.hash, message.few_shot_set)


def prompt_message(prompt: PromptRef | None) -> generation_pb2.PromptRef | None:
    """A prompt template's identity as it travels."""
    if prompt is None:
        return None
    return generation_pb2.PromptRef(
        prompt_id=prompt.prompt_id, version=prompt.version, hash=prompt.hash, few_shot_set=prompt.few_shot_set
    )


def degradation_of(message: generation_pb2.Degradation) -> Degradation:
    """A rung taken."""
    return Degradation(message.rung, message.cause)


def degradation_messages(degradations: Iterable[Degradation]) -> list[generation_pb2.Degradation]:
    """Rungs taken as they travel."""
    return [generation_pb2.Degradation(rung=one.rung, cause=one.cause) for one in degradations]


def timing_of(message: generation_pb2.StageTiming) -> StageTiming:
    """A stage's time."""
    return StageTiming(message.stage, message.start_us, message.duration_us)


def timing_messages(timings: Iterable[StageTiming]) -> list[generation_pb2.StageTiming]:
    """Stages' times as they travel, in the order in which they began."""
    return [
        generation_pb2.StageTiming(stage=one.stage, start_us=one.start_us, duration_us=one.duration_us)
        for one in sorted(timings, key=lambda timing: timing.start_us)
    ]


def citation_of(message: chunk_pb2.Citation) -> AnswerCitation:
    """A marker and what it points to."""
    return AnswerCitation(
        marker=message.marker,
        span=span_of(message.answer_span),
        chunk_id=message.chunk_id,
        document_id=message.document_id,
        revision=message.revision,
        content_hash=message.content_hash,
        source_span=span_of(message.source_span),
        title=message.title,
        source_uri=message.source_uri,
    )


def citation_message(citation: AnswerCitation) -> chunk_pb2.Citation:
    """A marker and what it points to as they travel."""
    return chunk_pb2.Citation(
        marker=citation.marker,
        answer_span=span_message(citation.span),
        chunk_id=citation.chunk_id,
        document_id=citation.document_id,
        revision=citation.revision,
        content_hash=citation.content_hash,
        source_span=span_message(citation.source_span),
        title=citation.title,
        source_uri=citation.source_uri,
    )


def found_chunk_of(message: chunk_pb2.ScoredChunk) -> FoundChunk:
    """A retrieved chunk, which keeps its message for the generator."""
    chunk = message.chunk
    return FoundChunk(
        chunk_id=chunk.chunk_id,
        document_id=chunk.document_id,
        revision=chunk.revision,
        content_hash=chunk.content_hash,
        rank=message.rank,
        score=message.score,
        text=chunk.text,
        title=chunk.title,
        sealed=message,
    )


def scored_chunk_message(found: FoundChunk) -> chunk_pb2.ScoredChunk:
    """The retriever's own message, with the text that the guards left of it."""
    message = found.sealed
    if not isinstance(message, chunk_pb2.ScoredChunk):
        raise TypeError(f"chunk {found.chunk_id} came without its message")
    if (message.chunk.text, message.chunk.title) == (found.text, found.title):
        return message
    redacted = chunk_pb2.ScoredChunk()
    redacted.CopyFrom(message)
    redacted.chunk.text, redacted.chunk.title = found.text, found.title
    return redacted


def chunk_ref_message(found: FoundChunk, *, used: bool) -> chunk_pb2.ChunkRef:
    """A chunk without its text."""
    return chunk_pb2.ChunkRef(
        chunk_id=found.chunk_id,
        document_id=found.document_id,
        revision=found.revision,
        content_hash=found.content_hash,
        rank=found.rank,
        score=found.score,
        used=used,
    )


def chunk_use_of(message: chunk_pb2.ChunkRef) -> ChunkUse:
    """A chunk without its text, and whether the prompt held it."""
    found = FoundChunk(
        chunk_id=message.chunk_id,
        document_id=message.document_id,
        revision=message.revision,
        content_hash=message.content_hash,
        rank=message.rank,
        score=message.score,
    )
    return ChunkUse(found, message.used)


def message_message(message: Message) -> text_pb2.Message:
    """A message of a conversation as it travels."""
    return text_pb2.Message(role=_ROLE_NUMBERS[message.role], content=message.content)


def sampling_of(message: generation_pb2.Sampling) -> Sampling:
    """Sampling settings; raises InvalidRequest naming `sampling.<field>` for one out of its bounds."""
    return Sampling(
        temperature=message.temperature if message.HasField("temperature") else None,
        top_p=message.top_p if message.HasField("top_p") else None,
        top_k=message.top_k if message.HasField("top_k") else None,
        max_output_tokens=message.max_output_tokens if message.HasField("max_output_tokens") else None,
        stop=tuple(message.stop),
        seed=message.seed if message.HasField("seed") else None,
        frequency_penalty=message.frequency_penalty if message.HasField("frequency_penalty") else None,
        presence_penalty=message.presence_penalty if message.HasField("presence_penalty") else None,
    )


def sampling_message(sampling: Sampling) -> generation_pb2.Sampling:
    """Sampling settings as they travel."""
    return generation_pb2.Sampling(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_output_tokens=sampling.max_output_tokens,
        stop=sampling.stop,
        seed=sampling.seed,
        frequency_penalty=sampling.frequency_penalty,
        presence_penalty=sampling.presence_penalty,
    )
