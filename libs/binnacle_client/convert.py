"""Protobuf to the SDK's own types and back; nothing else in the SDK touches a message."""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypedDict, Unpack

from google.protobuf.timestamp_pb2 import Timestamp

from binnacle.analytics.v1 import analytics_service_pb2 as analytics
from binnacle.drift_monitor.v1 import drift_monitor_service_pb2 as drift
from binnacle.gateway.v1 import gateway_service_pb2 as gateway
from binnacle.retriever.v1 import retriever_service_pb2 as retriever
from binnacle.type.v1 import chunk_pb2, generation_pb2, verdict_pb2
from binnacle_client.answers import (
    AffectedAnswer,
    Answer,
    AnswerEvent,
    AnswerRetracted,
    AnswerText,
    Citation,
    Completeness,
    DocumentInput,
    DocumentState,
    DriftAlert,
    Finding,
    FoundChunk,
    IndexedDocument,
    Operation,
    QuestionOptions,
    UsageRow,
)
from servicekit.rpc.metadata import metadata_to_proto

_FEEDBACK_KINDS = {
    "rating": gateway.FEEDBACK_KIND_RATING,
    "thumbs_up": gateway.FEEDBACK_KIND_THUMBS,
    "correction": gateway.FEEDBACK_KIND_CORRECTION,
    "label": gateway.FEEDBACK_KIND_LABEL,
}


class FeedbackValue(TypedDict, total=False):
    """Exactly one of them is given."""

    rating: int
    thumbs_up: bool
    correction: str
    label: str


def question_to_proto(text: str, options: QuestionOptions) -> gateway.Question:
    """The question with its options."""
    return gateway.Question(
        text=text,
        conversation_id=options.conversation_id,
        idempotency_key=options.idempotency_key,
        end_user_id=options.end_user_id,
        project=options.project,
        route=options.route,
        model=options.model,
        top_k=options.top_k,
        output_schema=options.output_schema,
        logprobs=options.logprobs,
        restore_pii=options.restore_pii,
        labels=dict(options.labels),
    )


def feedback_to_proto(
    request_id: str, author: str, comment: str, **value: Unpack[FeedbackValue]
) -> gateway.RecordFeedbackRequest:
    """Feedback with its one value, which says what kind it is."""
    [name] = value
    return gateway.RecordFeedbackRequest(
        request_id=request_id, kind=_FEEDBACK_KINDS[name], author=author, comment=comment, **value
    )


def answer_from_proto(message: gateway.Answer) -> Answer:
    """A whole answer."""
    return Answer(
        request_id=message.request_id,
        text=message.text,
        outcome=_name(gateway.Outcome, message.outcome, "OUTCOME_"),
        finish_reason=_name(generation_pb2.FinishReason, message.finish_reason, "FINISH_REASON_"),
        citations=tuple(_citation(citation) for citation in message.citations),
        input_tokens=message.usage.input_tokens,
        output_tokens=message.usage.output_tokens,
        cost_microusd=message.cost_microusd,
        model=message.model,
        route=message.route,
        verdicts=tuple(
            f"{_name(verdict_pb2.Surface, verdict.surface, 'SURFACE_')}: "
            f"{_name(verdict_pb2.Action, verdict.action, 'ACTION_')} by {verdict.detector}"
            for verdict in message.verdicts
        ),
        degradations=tuple(f"{rung.rung} ({rung.cause})" for rung in message.degradations),
        timings_us={timing.stage: timing.duration_us for timing in message.timings},
        mean_logprob=message.mean_logprob if message.HasField("mean_logprob") else None,
    )


def event_from_proto(message: gateway.StreamAnswerResponse) -> AnswerEvent | None:
    """An event of a streamed answer; None for those that only tell of progress."""
    match message.WhichOneof("event"):
        case "token":
            return AnswerText(message.token.text)
        case "retracted":
            return AnswerRetracted(message.retracted.reason, message.retracted.replacement)
        case "completed":
            return answer_from_proto(message.completed.answer)
        case _:
            return None


def document_to_proto(document: DocumentInput) -> retriever.Document:
    """A document to index."""
    return retriever.Document(
        document_id=document.document_id,
        title=document.title,
        media_type=document.media_type,
        content=document.content,
        source_uri=document.source_uri,
        metadata=metadata_to_proto(document.metadata),
        fetch_uri=document.fetch_uri,
    )


def indexed_from_proto(message: retriever.IndexResult) -> IndexedDocument:
    """What became of a document."""
    return IndexedDocument(
        document_id=message.document_id,
        outcome=_name(retriever.IndexOutcome, message.outcome, "INDEX_OUTCOME_"),
        revision=message.revision,
        chunk_count=message.chunk_count,
        error=message.error_message,
        reason=message.error_reason,
        flags=tuple(_name(retriever.QualityFlag, flag, "QUALITY_FLAG_") for flag in message.flags),
        duplicate_of=message.duplicate_of,
        language=message.language,
    )


def operation_from_proto(message: retriever.Operation) -> Operation:
    """How far a submitted document is."""
    done = message.state == retriever.OPERATION_STATE_DONE
    return Operation(
        operation_id=message.operation_id,
        stage=_name(retriever.OperationStage, message.stage, "OPERATION_STAGE_") if message.stage else "",
        chunks_done=message.chunks_done,
        chunks_total=message.chunks_total,
        result=indexed_from_proto(message.result) if done else None,
    )


def document_state_from_proto(message: retriever.DocumentInfo) -> DocumentState:
    """A document as it stands."""
    return DocumentState(
        document_id=message.document_id,
        revision=message.revision,
        chunk_count=message.chunk_count,
        title=message.title,
        source_uri=message.source_uri,
        media_type=message.media_type,
        content_hash=message.content_hash,
        index_time=_time(message.index_time) if message.HasField("index_time") else None,
        retract_time=_time(message.retract_time) if message.HasField("retract_time") else None,
    )


def affected_from_proto(message: analytics.AffectedAnswer) -> AffectedAnswer:
    """An answer that a document went into."""
    return AffectedAnswer(
        request_id=message.request_id,
        answer_time=_time(message.answer_time) if message.HasField("answer_time") else None,
        route=message.route,
        end_user_id=message.end_user_id,
        conversation_id=message.conversation_id,
        revisions=tuple(message.revisions),
        content_hashes=tuple(message.content_hashes),
        cited=message.cited,
    )


def found_from_proto(message: chunk_pb2.ScoredChunk) -> FoundChunk:
    """A chunk of a search."""
    chunk = message.chunk
    return FoundChunk(
        rank=message.rank,
        score=message.score,
        chunk_id=chunk.chunk_id,
        document_id=chunk.document_id,
        title=chunk.title,
        source_uri=chunk.source_uri,
        heading_path=tuple(chunk.heading_path),
        text=chunk.text,
    )


def alert_from_proto(message: drift.Alert) -> DriftAlert:
    """An alert as it is now."""
    return DriftAlert(
        alert_id=message.alert_id,
        state=_name(drift.AlertState, message.state, "ALERT_STATE_"),
        severity=_name(drift.Severity, message.severity, "SEVERITY_"),
        signal=message.signal,
        segment=message.segment,
        test=message.test,
        statistic=message.statistic,
        threshold=message.threshold,
        effect=message.effect,
        reference_mean=message.reference_window.mean,
        current_mean=message.current_window.mean,
        fire_time=_time(message.fire_time) if message.HasField("fire_time") else None,
        cursor=message.cursor,
    )


def usage_from_proto(message: analytics.UsageRow) -> UsageRow:
    """Usage of one group."""
    return UsageRow(
        group=dict(message.group),
        requests=message.requests,
        errors=message.errors,
        blocked=message.blocked,
        input_tokens=message.input_tokens,
        output_tokens=message.output_tokens,
        cost_microusd=message.cost_microusd,
        latency_p50_us=message.latency_p50_us,
        latency_p95_us=message.latency_p95_us,
    )


def completeness_from_proto(message: analytics.GetCompletenessResponse) -> Completeness:
    """The ledger's sums, and what of it is not as it should be."""
    return Completeness(
        complete=message.complete,
        accepted=sum(entry.accepted - entry.accepted_from for entry in message.entries),
        stored=sum(entry.stored for entry in message.entries),
        duplicates=message.duplicates,
        missing=message.missing,
        pending=message.pending,
        dead_lettered=message.dead_lettered,
        unknown_tails=message.unknown_tails,
        open=message.open,
        evicted=message.evicted,
        findings=tuple(finding for entry in message.entries for finding in _findings(entry)),
    )


def _findings(entry: analytics.LedgerEntry) -> Iterator[Finding]:
    found = partial(Finding, topic=entry.topic, partition=entry.partition, source=entry.source, producer=entry.producer)
    for what, count, ranges in (
        ("missing", entry.missing, entry.missing_ranges),
        ("pending", entry.pending, entry.pending_ranges),
        ("dead letter", entry.dead_lettered, entry.dead_lettered_ranges),
        ("duplicate", entry.duplicates, entry.duplicate_ranges),
    ):
        if count:
            yield found(what, count=count, ranges=tuple((one.first, one.last) for one in ranges))
    for what, state in (
        ("unknown tail", analytics.PRODUCER_STATE_CLOSED_UNCLEAN),
        ("open", analytics.PRODUCER_STATE_OPEN),
    ):
        if entry.state == state:
            yield found(what, after=entry.accepted)


def to_timestamp(moment: datetime | None) -> Timestamp | None:
    """A moment for a request; None stays None."""
    if moment is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(moment.astimezone(UTC))
    return timestamp


def _citation(message: chunk_pb2.Citation) -> Citation:
    return Citation(
        marker=message.marker,
        answer_span=(message.answer_span.start, message.answer_span.end),
        chunk_id=message.chunk_id,
        document_id=message.document_id,
        revision=message.revision,
        content_hash=message.content_hash,
        title=message.title,
        source_uri=message.source_uri,
    )


def _name(enum: Any, number: int, prefix: str) -> str:
    names: dict[int, str] = {value: name for name, value in enum.items()}
    return names.get(number, str(number)).removeprefix(prefix).lower()


def _time(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)
