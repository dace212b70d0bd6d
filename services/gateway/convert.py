"""The gateway's own messages ↔ domain types. Pure; used by `server.py` and, for recorded answers, `bootstrap.py`."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from binnacle.gateway.v1 import gateway_service_pb2 as pb
from binnacle.type.v1 import text_pb2
from servicekit.domain.generation import Cost
from servicekit.domain.prompt import Message, Sampling
from servicekit.errors import InvalidRequest
from services.gateway import convert_types as types
from services.gateway.answer import (
    Accepted,
    Answer,
    AnswerEvent,
    Completed,
    Outcome,
    Retracted,
    Retrieved,
    Token,
    VerdictFound,
)
from services.gateway.feedback import Feedback, FeedbackKind, RecordedFeedback
from services.gateway.question import DEFAULT_NAME, Channel, Question, RetrievalMode, SealedFilter
from services.gateway.validation import MAX_MESSAGES

_OUTCOMES = {
    pb.OUTCOME_ANSWERED: Outcome.ANSWERED,
    pb.OUTCOME_BLOCKED: Outcome.BLOCKED,
    pb.OUTCOME_REFUSED: Outcome.REFUSED,
    pb.OUTCOME_FAILED: Outcome.FAILED,
    pb.OUTCOME_CANCELLED: Outcome.CANCELLED,
    pb.OUTCOME_DEADLINE: Outcome.DEADLINE,
}
_OUTCOME_NUMBERS = {outcome: number for number, outcome in _OUTCOMES.items()}
_MODES = {
    pb.RETRIEVAL_MODE_UNSPECIFIED: RetrievalMode.ROUTE,
    pb.RETRIEVAL_MODE_DENSE: RetrievalMode.DENSE,
    pb.RETRIEVAL_MODE_SPARSE: RetrievalMode.SPARSE,
    pb.RETRIEVAL_MODE_HYBRID: RetrievalMode.HYBRID,
    pb.RETRIEVAL_MODE_NONE: RetrievalMode.NONE,
}
_KINDS = {
    pb.FEEDBACK_KIND_RATING: FeedbackKind.RATING,
    pb.FEEDBACK_KIND_THUMBS: FeedbackKind.THUMBS,
    pb.FEEDBACK_KIND_CORRECTION: FeedbackKind.CORRECTION,
    pb.FEEDBACK_KIND_LABEL: FeedbackKind.LABEL,
}


def question_of(message: pb.Question, *, channel: Channel) -> Question:
    """A question.

    Raises:
        InvalidRequest: an enum number that is unknown, or sampling out of its bounds.
    """
    mode = _MODES.get(message.retrieval_mode)
    if mode is None:
        raise InvalidRequest(
            f"question.retrieval_mode must be one of RetrievalMode, got {message.retrieval_mode}",
            field="question.retrieval_mode",
        )
    return Question(
        text=message.text,
        channel=channel,
        idempotency_key=message.idempotency_key,
        fingerprint=_fingerprint(message),
        conversation_id=message.conversation_id,
        history=_history_of(message),
        end_user_id=message.end_user_id,
        project=message.project or DEFAULT_NAME,
        route=message.route or DEFAULT_NAME,
        release=message.release,
        sticky_key=message.sticky_key,
        labels=dict(message.labels),
        sampling=_sampling_of(message),
        training_consent=message.training_consent,
        filter=SealedFilter(message.filter.SerializeToString()) if message.HasField("filter") else None,
        top_k=message.top_k,
        model=message.model,
        retrieval_mode=mode,
        output_schema=message.output_schema,
        want_logprobs=message.logprobs,
        restore_pii=message.restore_pii,
    )


def _fingerprint(message: pb.Question) -> bytes:
    """What tells questions under one idempotency key apart; nothing where there is no key.

    Restoring is left out: it concerns how the answer is told, and what is kept for repeats is redacted either way.
    """
    if not message.idempotency_key:
        return b""
    asked = pb.Question()
    asked.CopyFrom(message)
    asked.ClearField("restore_pii")
    return asked.SerializeToString(deterministic=True)


def _history_of(message: pb.Question) -> tuple[Message, ...]:
    if len(message.history) > MAX_MESSAGES:
        raise InvalidRequest(
            f"question.history must hold at most {MAX_MESSAGES} messages, got {len(message.history)}",
            field="question.history",
        )
    return tuple(_message_of(one, position) for position, one in enumerate(message.history))


def _message_of(message: text_pb2.Message, position: int) -> Message:
    role = types.ROLES.get(message.role)
    if role is None:
        field = f"question.history[{position}].role"
        raise InvalidRequest(f"{field} must be SYSTEM, USER or ASSISTANT, got {message.role}", field=field)
    return Message(role, message.content)


def _sampling_of(message: pb.Question) -> Sampling:
    try:
        return types.sampling_of(message.sampling)
    except InvalidRequest as error:
        raise InvalidRequest(f"question.{error.message}", field=f"question.{error.field}") from error


def answer_message(answer: Answer) -> pb.Answer:
    """An answer as it travels."""
    return pb.Answer(
        request_id=answer.request_id,
        text=answer.text,
        outcome=_OUTCOME_NUMBERS[answer.outcome],
        citations=[types.citation_message(citation) for citation in answer.citations],
        chunks=[types.chunk_ref_message(use.chunk, used=use.used) for use in answer.chunks],
        usage=types.usage_message(answer.usage),
        cost_microusd=answer.cost.microusd,
        price_version=answer.cost.price_version,
        finish_reason=types.finish_reason_number(answer.finish_reason),
        verdicts=[types.verdict_message(verdict) for verdict in answer.verdicts],
        degradations=types.degradation_messages(answer.degradations),
        timings=types.timing_messages(answer.timings),
        corpus_version=answer.corpus_version,
        release=answer.release,
        route=answer.route,
        variant=answer.variant,
        model=answer.model,
        conversation_id=answer.conversation_id,
        replayed=answer.replayed,
        prompt=types.prompt_message(answer.prompt),
        mean_logprob=answer.mean_logprob,
    )


def answer_of(message: pb.Answer) -> Answer:
    """An answer."""
    return Answer(
        request_id=message.request_id,
        text=message.text,
        outcome=_OUTCOMES[message.outcome],
        citations=tuple(types.citation_of(citation) for citation in message.citations),
        chunks=tuple(types.chunk_use_of(chunk) for chunk in message.chunks),
        usage=types.usage_of(message.usage),
        cost=Cost(message.cost_microusd, message.price_version),
        finish_reason=types.finish_reason_of(message.finish_reason),
        verdicts=tuple(types.verdict_of(verdict) for verdict in message.verdicts),
        degradations=tuple(types.degradation_of(one) for one in message.degradations),
        timings=tuple(types.timing_of(timing) for timing in message.timings),
        corpus_version=message.corpus_version,
        release=message.release,
        route=message.route,
        variant=message.variant,
        model=message.model,
        conversation_id=message.conversation_id,
        prompt=types.prompt_of(message.prompt) if message.HasField("prompt") else None,
        replayed=message.replayed,
        mean_logprob=message.mean_logprob if message.HasField("mean_logprob") else None,
    )


def encode_answer(answer: Answer) -> bytes:
    """An answer as the state store keeps it."""
    return answer_message(answer).SerializeToString()


def decode_answer(encoded: bytes) -> Answer:
    """An answer as the state store kept it."""
    return answer_of(pb.Answer.FromString(encoded))


def stream_message(event: AnswerEvent, sequence: int) -> pb.StreamAnswerResponse:
    """An event of a streamed answer, at its place in the stream."""
    match event:
        case Token(text):
            return pb.StreamAnswerResponse(sequence=sequence, token=pb.Token(text=text))
        case Accepted(request_id, accept_time):
            accepted = pb.Accepted(request_id=request_id, accept_time=timestamp(accept_time))
            return pb.StreamAnswerResponse(sequence=sequence, accepted=accepted)
        case Retrieved(chunks, corpus_version):
            refs = [types.chunk_ref_message(chunk, used=False) for chunk in chunks]
            retrieved = pb.Retrieved(chunks=refs, corpus_version=corpus_version)
            return pb.StreamAnswerResponse(sequence=sequence, retrieved=retrieved)
        case VerdictFound(verdict):
            return pb.StreamAnswerResponse(sequence=sequence, verdict=types.verdict_message(verdict))
        case Retracted(reason, replacement):
            retracted = pb.Retracted(reason=reason, replacement=replacement)
            return pb.StreamAnswerResponse(sequence=sequence, retracted=retracted)
        case Completed(answer):
            completed = pb.Completed(answer=answer_message(answer))
            return pb.StreamAnswerResponse(sequence=sequence, completed=completed)


def feedback_of(message: pb.RecordFeedbackRequest) -> Feedback:
    """A feedback; a value is None unless it is the one that was sent."""
    value = message.WhichOneof("value")
    return Feedback(
        request_id=message.request_id,
        kind=_KINDS.get(message.kind),
        rating=message.rating if value == "rating" else None,
        thumbs_up=message.thumbs_up if value == "thumbs_up" else None,
        correction=message.correction if value == "correction" else None,
        label=message.label if value == "label" else None,
        feedback_id=message.feedback_id,
        author=message.author,
        supersedes=message.supersedes,
        comment=message.comment,
    )


def feedback_response(recorded: RecordedFeedback) -> pb.RecordFeedbackResponse:
    """What the giver of a feedback gets."""
    return pb.RecordFeedbackResponse(
        feedback_id=recorded.feedback.feedback_id, record_time=timestamp(recorded.record_time)
    )


def timestamp(moment: datetime) -> Timestamp:
    """A moment as it travels."""
    message = Timestamp()
    message.FromDatetime(moment.astimezone(UTC))
    return message
