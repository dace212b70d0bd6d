"""Protobuf ↔ the generator's domain types, with the bounds that the proto states. Nothing else touches messages."""

import math
from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration

from binnacle.generator.v1 import generator_service_pb2 as rpc
from binnacle.type.v1 import chunk_pb2, generation_pb2, text_pb2
from servicekit.domain.chunk import Chunk, Citation, ScoredChunk
from servicekit.domain.generation import Attempt, FinishReason, TokenCount, TokenEvent, TokenLogprob, Usage
from servicekit.domain.prompt import Message, Role, Sampling
from servicekit.errors import InvalidRequest
from servicekit.rpc.caller import caller_or_none
from servicekit.rpc.metadata import metadata_from_proto
from services.generator.generating import Answer, Question, Spent
from services.generator.models import ModelStatus
from services.generator.packing import Prompt
from services.generator.pool.health import ReplicaState
from services.generator.pool.replica import ReplicaStatus

MAX_QUESTION_CHARS = 32_768
MAX_CHUNKS = 100
MAX_CHUNK_CHARS = 65_536
MAX_MESSAGES = 64
MAX_NAME_CHARS = 128
MAX_ADAPTER_CHARS = 128
MAX_COUNT_CHARS = 1_048_576
MAX_TOLD_ATTEMPTS = 8
_MICROSECONDS = 1_000_000
_NANOSECONDS = 1_000_000_000

_ROLES = {
    text_pb2.ROLE_SYSTEM: Role.SYSTEM,
    text_pb2.ROLE_USER: Role.USER,
    text_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
}
_FINISH_REASONS = {
    FinishReason.STOP: generation_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: generation_pb2.FINISH_REASON_LENGTH,
    FinishReason.CONTENT_FILTER: generation_pb2.FINISH_REASON_CONTENT_FILTER,
    FinishReason.CANCELLED: generation_pb2.FINISH_REASON_CANCELLED,
    FinishReason.ERROR: generation_pb2.FINISH_REASON_ERROR,
    FinishReason.DEADLINE: generation_pb2.FINISH_REASON_DEADLINE,
}
_REPLICA_STATES = {
    ReplicaState.HEALTHY: rpc.REPLICA_STATE_HEALTHY,
    ReplicaState.EJECTED: rpc.REPLICA_STATE_EJECTED,
    ReplicaState.PROBING: rpc.REPLICA_STATE_PROBING,
}


def question_from(message: rpc.GenerateAnswerRequest) -> Question:
    """The question, every bound checked."""
    _bounded("question", message.question, 1, MAX_QUESTION_CHARS)
    if not message.question.strip():
        raise InvalidRequest("question must not be blank", field="question")
    if len(message.chunks) > MAX_CHUNKS:
        raise InvalidRequest(f"chunks must be at most {MAX_CHUNKS}, got {len(message.chunks)}", field="chunks")
    if len(message.history) > MAX_MESSAGES:
        raise InvalidRequest(
            f"history must be at most {MAX_MESSAGES} messages, got {len(message.history)}", field="history"
        )
    for name in ("model", "prompt_id", "request_id"):
        _bounded(name, getattr(message, name), 0, MAX_NAME_CHARS)
    chunks = [_chunk_from(chunk, f"chunks[{index}]") for index, chunk in enumerate(message.chunks)]
    history = [_message_from(one, f"history[{index}]") for index, one in enumerate(message.history)]
    return Question(
        prompt=Prompt(message.question, chunks, history),
        model=message.model,
        sampling=_sampling_from(message.sampling),
        prompt_id=message.prompt_id,
        request_id=message.request_id,
        tenant=caller.tenant if (caller := caller_or_none()) else "",
        output_schema=message.output_schema,
        adapter=_adapter_from(message),
        want_logprobs=message.logprobs,
    )


def completion_from(message: rpc.CompleteAnswerRequest) -> Question:
    """The question of a whole answer, every bound checked."""
    if not message.HasField("generation"):
        raise InvalidRequest("generation must be set: it is what is to be answered", field="generation")
    try:
        return question_from(message.generation)
    except InvalidRequest as error:
        raise of_generation(error) from None


def of_generation(error: InvalidRequest) -> InvalidRequest:
    """A complaint about a field of `generation`, which names it as CompleteAnswerRequest does."""
    if error.field:
        error.field = f"generation.{error.field}"
    return error


def count_from(message: rpc.CountTokensRequest) -> tuple[str, str]:
    """The text to count, and the alias."""
    _bounded("text", message.text, 0, MAX_COUNT_CHARS)
    _bounded("model", message.model, 0, MAX_NAME_CHARS)
    return message.text, message.model


def token_to(event: TokenEvent) -> rpc.GenerateAnswerResponse:
    """A piece of the answer; made in place, which takes half the time."""
    response = rpc.GenerateAnswerResponse()
    delta = response.token
    delta.text = event.text
    delta.token_count = event.token_count
    if event.logprobs:
        delta.logprobs.extend(map(_logprob_to, event.logprobs))
    return response


def answer_to(answer: Answer) -> rpc.GenerateAnswerResponse:
    """The end of a stream."""
    return rpc.GenerateAnswerResponse(end=_end_to(answer))


def completion_to(answer: Answer, logprobs: Iterable[TokenLogprob]) -> rpc.CompleteAnswerResponse:
    """A whole answer."""
    return rpc.CompleteAnswerResponse(end=_end_to(answer), logprobs=map(_logprob_to, logprobs))


def _end_to(answer: Answer) -> rpc.GenerationEnd:
    return rpc.GenerationEnd(
        answer=answer.text,
        citations=[_citation_to(citation) for citation in answer.citations.resolved],
        invalid_markers=answer.citations.invalid,
        usage=_usage_to(answer.usage),
        cost_microusd=answer.cost.microusd,
        price_version=answer.cost.price_version,
        finish_reason=_FINISH_REASONS[answer.finish_reason],
        attempts=[_attempt_to(attempt) for attempt in answer.attempts],
        prompt=generation_pb2.PromptRef(
            prompt_id=answer.prompt.prompt_id,
            version=answer.prompt.version,
            hash=answer.prompt.hash,
            few_shot_set=answer.prompt.few_shot_set,
        ),
        packed_chunk_ids=[item.scored.chunk.chunk_id for item in answer.packed.context],
        dropped_chunks=answer.packed.dropped_chunks,
        dropped_messages=answer.packed.dropped_messages,
        degradations=[generation_pb2.Degradation(rung=d.rung, cause=d.cause) for d in answer.degradations],
        refused=answer.refused,
        mean_logprob=answer.mean_logprob,
        duplicate_chunks=answer.packed.duplicate_chunks,
        shortened_chunks=answer.packed.shortened_chunks,
        sampling=_sampling_to(answer.sampling),
    )


def spent_to(spent: Spent) -> tuple[generation_pb2.Attempt, ...]:
    """The details of an error, as many as surely fit into a status: the newest."""
    return tuple(_attempt_to(attempt) for attempt in spent.attempts[-MAX_TOLD_ATTEMPTS:])


def count_to(count: TokenCount) -> rpc.CountTokensResponse:
    """A number of tokens."""
    return rpc.CountTokensResponse(token_count=count.tokens, estimated=count.estimated)


def model_to(status: ModelStatus) -> rpc.Model:
    """An alias."""
    info, price = status.info, status.price
    return rpc.Model(
        alias=status.route.alias,
        model=info.model if info else "",
        revision=info.revision if info else "",
        context_window_tokens=info.max_total_tokens if info else 0,
        input_price_microusd=price.input_microusd,
        output_price_microusd=price.output_microusd,
        price_version=price.version,
        available=status.available,
        replicas=map(_replica_to, status.replicas),
    )


def _replica_to(status: ReplicaStatus) -> rpc.Replica:
    expected_wait = Duration()
    if math.isfinite(status.expected_wait_s):
        expected_wait.FromNanoseconds(round(status.expected_wait_s * _NANOSECONDS))
    return rpc.Replica(
        address=status.address,
        state=_REPLICA_STATES[status.state],
        queued_requests=status.queued_requests,
        running_requests=status.running_requests,
        outstanding_tokens=status.outstanding_tokens,
        expected_wait=expected_wait,
        last_error_reason=status.last_error_reason,
    )


def _adapter_from(message: rpc.GenerateAnswerRequest) -> str:
    _bounded("adapter", message.adapter, 0, MAX_ADAPTER_CHARS)
    if not message.adapter.isprintable():
        raise InvalidRequest(
            f"adapter must hold printable characters only, got {message.adapter[:32]!a}", field="adapter"
        )
    return message.adapter


def _chunk_from(message: chunk_pb2.ScoredChunk, field: str) -> ScoredChunk:
    chunk = message.chunk
    _bounded(f"{field}.chunk.text", chunk.text, 1, MAX_CHUNK_CHARS)
    return ScoredChunk(
        chunk=Chunk(
            chunk_id=chunk.chunk_id,
            document_id=chunk.document_id,
            revision=chunk.revision,
            content_hash=chunk.content_hash,
            text=chunk.text,
            title=chunk.title,
            source_uri=chunk.source_uri,
            heading_path=tuple(chunk.heading_path),
            start=chunk.span.start,
            end=chunk.span.end,
            ordinal=chunk.ordinal,
            token_count=chunk.token_count,
            metadata=metadata_from_proto(chunk.metadata, path=f"{field}.chunk.metadata"),
        ),
        rank=message.rank,
        score=message.score,
        dense_score=message.dense_score if message.HasField("dense_score") else None,
        sparse_score=message.sparse_score if message.HasField("sparse_score") else None,
        neighbour=message.neighbour,
        passage=message.passage,
        overlap_chars=message.overlap_chars,
    )


def _message_from(message: text_pb2.Message, field: str) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidRequest(
            f"{field}.role must be ROLE_SYSTEM, ROLE_USER or ROLE_ASSISTANT, got {message.role}", field=f"{field}.role"
        )
    _bounded(f"{field}.content", message.content, 1, MAX_QUESTION_CHARS)
    return Message(role, message.content)


def _sampling_from(message: generation_pb2.Sampling) -> Sampling:
    def given(name: str) -> float | None:
        return getattr(message, name) if message.HasField(name) else None  # type: ignore[arg-type]  # a field's name

    return Sampling(
        temperature=given("temperature"),
        top_p=given("top_p"),
        top_k=message.top_k if message.HasField("top_k") else None,
        max_output_tokens=message.max_output_tokens if message.HasField("max_output_tokens") else None,
        stop=tuple(message.stop),
        seed=message.seed if message.HasField("seed") else None,
        frequency_penalty=given("frequency_penalty"),
        presence_penalty=given("presence_penalty"),
    )


def _sampling_to(sampling: Sampling) -> generation_pb2.Sampling:
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


def _logprob_to(token: TokenLogprob) -> generation_pb2.TokenLogprob:
    return generation_pb2.TokenLogprob(text=token.text, logprob=token.logprob)


def _citation_to(citation: Citation) -> chunk_pb2.Citation:
    chunk = citation.chunk
    return chunk_pb2.Citation(
        marker=citation.marker,
        answer_span=text_pb2.Span(start=citation.start, end=citation.end),
        chunk_id=chunk.chunk_id,
        document_id=chunk.document_id,
        revision=chunk.revision,
        content_hash=chunk.content_hash,
        source_span=text_pb2.Span(start=chunk.start, end=chunk.end),
        title=chunk.title,
        source_uri=chunk.source_uri,
    )


def _usage_to(usage: Usage) -> generation_pb2.Usage:
    return generation_pb2.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        estimated=usage.estimated,
    )


def _attempt_to(attempt: Attempt) -> generation_pb2.Attempt:
    return generation_pb2.Attempt(
        number=attempt.number,
        model_alias=attempt.model_alias,
        model=attempt.model,
        revision=attempt.revision,
        engine=attempt.engine,
        adapter=attempt.adapter,
        usage=_usage_to(attempt.usage),
        cost_microusd=attempt.cost.microusd,
        price_version=attempt.cost.price_version,
        duration_us=round(attempt.duration_s * _MICROSECONDS),
        time_to_first_token_us=round((attempt.time_to_first_token_s or 0) * _MICROSECONDS),
        finish_reason=_FINISH_REASONS[attempt.finish_reason],
        error_reason=attempt.error_reason,
        choice=attempt.choice,
        queue_us=round(attempt.queue_s * _MICROSECONDS),
    )


def _bounded(field: str, text: str, least: int, most: int) -> None:
    if not least <= len(text) <= most:
        raise InvalidRequest(f"{field} must be {least} to {most} characters, got {len(text)}", field=field)
