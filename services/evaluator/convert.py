"""Protobuf ↔ the evaluator's domain types. Nothing else here touches generated messages."""

from collections.abc import Sequence
from datetime import datetime

from binnacle.evaluator.v1 import evaluator_service_pb2 as rpc
from binnacle.events.v1 import evaluation_scored_pb2, feedback_recorded_pb2, interaction_completed_pb2
from binnacle.retriever.v1 import retriever_service_pb2
from servicekit.domain.score import Metric, Score, Unmeasured
from servicekit.errors import InvalidRequest
from servicekit.events.codec import read_time
from services.evaluator.evaluating import Context, Evaluation, Interaction
from services.evaluator.feedback import Feedback, FeedbackKind
from services.evaluator.subject import CitedSpan, Ending, Subject, UsedChunk

MAX_QUESTION_CHARS = 32_768
MAX_ANSWER_CHARS = 65_536
MAX_CHUNKS = 100
MAX_CHUNK_CHARS = 65_536

_Outcome = interaction_completed_pb2.InteractionOutcome
_ENDINGS = {
    _Outcome.INTERACTION_OUTCOME_ANSWERED: Ending.ANSWERED,
    _Outcome.INTERACTION_OUTCOME_REFUSED: Ending.REFUSED,
    _Outcome.INTERACTION_OUTCOME_BLOCKED: Ending.BLOCKED,
}
_Kind = feedback_recorded_pb2.FeedbackType


def interaction_from(
    message: interaction_completed_pb2.InteractionCompleted, *, tenant: str, record_time: datetime
) -> Interaction:
    """The interaction to score; an outcome unknown to this version counts as unfinished.

    `record_time` stands in for a missing time of completion.

    Raises:
        RejectedEvent: no calendar has its time of completion.
    """
    context = Context(
        request_id=message.request_id,
        tenant=tenant,
        route=message.route,
        model=message.model,
        prompt_version=message.prompt.version,
        interaction_time=read_time(message.complete_time, field="complete_time")
        if message.HasField("complete_time")
        else record_time,
    )
    subject = Subject(
        question=message.query,
        answer=message.answer,
        ending=_ENDINGS.get(message.outcome, Ending.UNFINISHED),
        chunks=tuple(
            UsedChunk(chunk.content_hash, chunk.rank, chunk.chunk_id) for chunk in message.chunks if chunk.used
        ),
        citations=tuple(
            CitedSpan(cited.answer_span.start, cited.answer_span.end, cited.content_hash) for cited in message.citations
        ),
    )
    return Interaction(context, subject)


def feedback_from(message: feedback_recorded_pb2.FeedbackRecorded) -> Feedback:
    """The feedback to score; a kind unknown to this version counts as a label.

    Raises:
        RejectedEvent: no calendar has its time.
    """
    kind, value = FeedbackKind.LABEL, None
    if message.kind == _Kind.FEEDBACK_TYPE_RATING:
        kind, value = FeedbackKind.RATING, float(message.rating) if message.rating else None
    elif message.kind == _Kind.FEEDBACK_TYPE_THUMBS:
        kind, value = FeedbackKind.THUMBS, 1.0 if message.thumbs_up else -1.0
    elif message.kind == _Kind.FEEDBACK_TYPE_CORRECTION:
        kind = FeedbackKind.CORRECTION
    record_time = read_time(message.record_time, field="record_time")
    return Feedback(message.feedback_id, message.request_id, kind, value, record_time)


def evaluation_to(evaluation: Evaluation) -> evaluation_scored_pb2.EvaluationScored:
    """The event of one evaluation."""
    context, score = evaluation.context, evaluation.score
    message = evaluation_scored_pb2.EvaluationScored(
        evaluation_id=evaluation.evaluation_id,
        request_id=context.request_id,
        tenant_id=context.tenant,
        metric=score.metric,
        metric_version=score.version,
        unmeasured_reason=score.unmeasured or "",
        inclusion_probability=evaluation.inclusion_probability,
        route=context.route,
        model=context.model,
        prompt_version=context.prompt_version,
        feedback_id=evaluation.feedback_id,
    )
    message.score_time.FromDatetime(evaluation.score_time)
    if score.value is not None:
        message.value = score.value
    if context.interaction_time is not None:
        message.interaction_time.FromDatetime(context.interaction_time)
    return message


def texts_from(response: retriever_service_pb2.BatchGetChunksResponse) -> dict[str, str | Unmeasured]:
    """Texts by content hash, or why there is none."""
    found: dict[str, str | Unmeasured] = {}
    for stored in response.chunks:
        match stored.WhichOneof("state"):
            case "chunk":
                found[stored.content_hash] = stored.chunk.text
            case "tombstone":
                found[stored.content_hash] = Unmeasured.CHUNK_ERASED
            case _:
                found[stored.content_hash] = Unmeasured.CHUNK_NOT_FOUND
    return found


def subject_from(request: rpc.ScoreAnswerRequest) -> Subject:
    """The subject of a ScoreAnswer request, its markers `[n]` taken as citations of the n-th chunk.

    Raises:
        InvalidRequest: a field is missing or beyond its bound.
    """
    _require_text("question", request.question, most=MAX_QUESTION_CHARS)
    _require_text("answer", request.answer, most=MAX_ANSWER_CHARS)
    texts = request.chunk_texts
    if len(texts) > MAX_CHUNKS:
        raise InvalidRequest(f"chunk_texts must be at most {MAX_CHUNKS}, got {len(texts)}", field="chunk_texts")
    for place, text in enumerate(texts):
        if len(text) > MAX_CHUNK_CHARS:
            raise InvalidRequest(
                f"chunk_texts[{place}] must be at most {MAX_CHUNK_CHARS} characters, got {len(text)}",
                field=f"chunk_texts[{place}]",
            )
    return Subject.of_texts(request.question, request.answer, texts)


def metrics_from(request: rpc.ScoreAnswerRequest) -> frozenset[Metric] | None:
    """The metrics asked for; None for all.

    Raises:
        InvalidRequest: a name is unknown; the message lists those there are.
    """
    for place, name in enumerate(request.metrics):
        if name not in set(Metric):
            raise InvalidRequest(
                f"metrics[{place}] must be one of {', '.join(Metric)}, got {name[:64]!r}", field=f"metrics[{place}]"
            )
    return frozenset(Metric(name) for name in request.metrics) or None


def scores_to(scores: Sequence[Score]) -> rpc.ScoreAnswerResponse:
    """The response of ScoreAnswer."""
    response = rpc.ScoreAnswerResponse()
    for score in scores:
        message = response.scores.add(
            metric=score.metric, metric_version=score.version, unmeasured_reason=score.unmeasured or ""
        )
        if score.value is not None:
            message.value = score.value
    return response


def _require_text(field: str, text: str, *, most: int) -> None:
    if not text.strip():
        raise InvalidRequest(f"{field} is required and must hold more than blank space", field=field)
    if len(text) > most:
        raise InvalidRequest(f"{field} must be at most {most} characters, got {len(text)}", field=field)
