"""A handful of coherent events of every topic for tests that ask an analytics store; built as services build them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from google.protobuf.message import Message

from binnacle.drift_monitor.v1.drift_monitor_service_pb2 import AlertState, Severity
from binnacle.events.v1.document_indexed_pb2 import DocumentIndexed, DocumentOutcome
from binnacle.events.v1.drift_alerted_pb2 import DriftAlerted
from binnacle.events.v1.evaluation_scored_pb2 import EvaluationScored
from binnacle.events.v1.feedback_recorded_pb2 import FeedbackRecorded, FeedbackType
from binnacle.events.v1.guardrail_decided_pb2 import GuardrailDecided
from binnacle.events.v1.interaction_completed_pb2 import CacheStatus, InteractionCompleted, InteractionOutcome
from binnacle.type.v1.verdict_pb2 import Action, Surface, Verdict
from servicekit.events import topics
from servicekit.ports.analytics_store import AnalyticsStore
from services.analytics.record_bytes import varint
from services.analytics.tables import read_tables

TENANT = "acme"
_TOPIC_FIELD, _TENANT_FIELD, _SOURCE_FIELD, _TIME_FIELD, _ID_FIELD = 50001, 50002, 50003, 50008, 50009


@dataclass(frozen=True, slots=True)
class Example:
    """One event and where it belongs."""

    topic: str
    event_id: str
    message: Message


def examples(*, now: datetime, yesterday: datetime) -> Sequence[Example]:
    """Four requests just `now` and one `yesterday`, with what the guardrail, the evaluator and people made of them."""
    return [
        *_interactions(now, yesterday),
        *_decisions(now),
        *_evaluations(now),
        *_feedback(now),
        *_alerts(now),
        *_documents(now),
    ]


async def insert(store: AnalyticsStore, events: Sequence[Example], *, event_time: datetime) -> None:
    """As the sink inserts them: the message's bytes with the envelope behind, a batch for each topic."""
    tables = await read_tables(store)
    for topic in dict.fromkeys(event.topic for event in events):
        rows = b"".join(_row(event, event_time) for event in events if event.topic == topic)
        await store.insert_bytes(tables[topic].insert_sql, rows, settings=tables[topic].settings)


def _row(event: Example, time: datetime) -> bytes:
    texts = (
        (_TOPIC_FIELD, event.topic),
        (_TENANT_FIELD, TENANT),
        (_SOURCE_FIELD, "gateway"),
        (_ID_FIELD, event.event_id),
    )
    envelope = b"".join(varint(field << 3 | 2) + varint(len(text)) + text.encode() for field, text in texts)
    stamp = varint(_TIME_FIELD << 3 | 1) + int(time.timestamp() * 1000).to_bytes(8, "little")
    body = event.message.SerializeToString() + envelope + stamp
    return varint(len(body)) + body


def _interactions(now: datetime, yesterday: datetime) -> Iterator[Example]:
    first = _answered("r-1", now, variant="a", version="4", cost_microusd=700, duration_us=900_000)
    first.time_to_first_token_us = 200_000
    first.chunks.add(chunk_id="c-1", document_id="doc-1", rank=1, used=True)
    first.chunks.add(chunk_id="c-2", document_id="doc-2", rank=2, used=True)
    first.citations.add(marker="[1]", chunk_id="c-1", document_id="doc-1", revision=1, title="Deadlines")
    second = _answered("r-2", now, variant="b", version="5", cost_microusd=300, duration_us=1_900_000)
    second.time_to_first_token_us = 400_000
    second.chunks.add(chunk_id="c-2", document_id="doc-2", rank=1, used=True)
    second.attempts.add(number=1, engine="tgi-1", error_reason="ENGINE_TIMEOUT", choice="affinity", cost_microusd=40)
    second.attempts.add(number=2, engine="tgi-2", choice="retry", queue_us=3000, cost_microusd=260)
    second.mean_logprob = -0.5
    second.invalid_markers.append("[7]")
    second.degradations.add(rung="fallback_model", cause="ENGINE_TIMEOUT")
    third = InteractionCompleted(request_id="r-3", outcome=InteractionOutcome.INTERACTION_OUTCOME_BLOCKED)
    third.route, third.query = "support", "bad question"
    third.complete_time.FromDatetime(now)
    fourth = _answered("r-4", now, variant="a", version="4", cost_microusd=0, duration_us=5_000)
    fourth.cache_status = CacheStatus.CACHE_STATUS_EXACT_HIT
    fourth.citations.add(marker="[1]", chunk_id="c-1", document_id="doc-1", revision=1, title="Deadlines")
    fourth.output_schema_hash = "0a" * 32
    fifth = _answered("r-5", yesterday, variant="a", version="4", cost_microusd=500_000, duration_us=1_000_000)
    for message in (first, second, third, fourth, fifth):
        yield Example(topics.INTERACTION_COMPLETED, f"i-{message.request_id}", message)


def _answered(
    request_id: str, time: datetime, *, variant: str, version: str, cost_microusd: int, duration_us: int
) -> InteractionCompleted:
    message = InteractionCompleted(
        request_id=request_id,
        outcome=InteractionOutcome.INTERACTION_OUTCOME_ANSWERED,
        route="support",
        model="large",
        variant=variant,
        query=f"question {request_id}",
        answer=f"answer {request_id}",
        cost_microusd=cost_microusd,
        duration_us=duration_us,
        cache_status=CacheStatus.CACHE_STATUS_MISS,
    )
    message.prompt.prompt_id, message.prompt.version = "answer", version
    message.timings.add(stage="generate", start_us=0, duration_us=duration_us // 2)
    message.accept_time.FromDatetime(time - timedelta(microseconds=duration_us))
    message.complete_time.FromDatetime(time)
    return message


def _decisions(now: datetime) -> Iterator[Example]:
    blocking = Verdict(
        surface=Surface.SURFACE_INPUT, detector="injection", rule="ignore-previous", action=Action.ACTION_BLOCK
    )
    on_trial = Verdict(
        surface=Surface.SURFACE_INPUT, detector="topic", rule="competitors", action=Action.ACTION_BLOCK, shadow=True
    )
    for request_id, verdict, action in (
        ("r-3", blocking, Action.ACTION_BLOCK),
        ("r-1", on_trial, Action.ACTION_ALLOW),
    ):
        message = GuardrailDecided(request_id=request_id, surface=Surface.SURFACE_INPUT, action=action)
        message.verdicts.append(verdict)
        message.decide_time.FromDatetime(now)
        yield Example(topics.GUARDRAIL_DECIDED, f"g-{request_id}", message)


def _evaluations(now: datetime) -> Iterator[Example]:
    scores = (
        ("r-1", "4", "groundedness", 0.9),
        ("r-1", "4", "answer_relevance", 0.8),
        ("r-2", "5", "groundedness", 0.25),
        ("r-2", "5", "answer_relevance", 0.4),
    )
    for request_id, version, metric, value in scores:
        name = f"e-{request_id}-{metric}"
        message = EvaluationScored(
            evaluation_id=name,
            request_id=request_id,
            metric=metric,
            metric_version="1",
            value=value,
            inclusion_probability=0.5,
            route="support",
            model="large",
            prompt_version=version,
        )
        message.interaction_time.FromDatetime(now)
        message.score_time.FromDatetime(now)
        yield Example(topics.EVALUATION_SCORED, name, message)


def _feedback(now: datetime) -> Iterator[Example]:
    given = (("f-1", "r-1", 5, "", ""), ("f-2", "r-2", 4, "", ""), ("f-3", "r-2", 1, "wrong", "f-2"))
    for name, request_id, rating, comment, supersedes in given:
        message = FeedbackRecorded(
            feedback_id=name,
            request_id=request_id,
            kind=FeedbackType.FEEDBACK_TYPE_RATING,
            rating=rating,
            comment=comment,
            supersedes=supersedes,
        )
        message.record_time.FromDatetime(now)
        yield Example(topics.FEEDBACK_RECORDED, name, message)


def _alerts(now: datetime) -> Iterator[Example]:
    changes = (
        ("one", AlertState.ALERT_STATE_FIRING, 1),
        ("one", AlertState.ALERT_STATE_ACKNOWLEDGED, 3),
        ("two", AlertState.ALERT_STATE_FIRING, 2),
        ("two", AlertState.ALERT_STATE_RESOLVED, 4),
    )
    for name, state, cursor in changes:
        message = DriftAlerted()
        message.alert.alert_id, message.alert.alert_key = name, f"key-{name}"
        message.alert.state, message.alert.severity = state, Severity.SEVERITY_WARNING
        message.alert.signal, message.alert.segment, message.alert.cursor = "refusal_rate", "support", cursor
        message.alert.fire_time.FromDatetime(now)
        message.change_time.FromDatetime(now)
        yield Example(topics.DRIFT_ALERTED, f"a-{cursor}", message)


def _documents(now: datetime) -> Iterator[Example]:
    outcomes = (
        ("doc-1", DocumentOutcome.DOCUMENT_OUTCOME_CREATED, 3, ""),
        ("doc-2", DocumentOutcome.DOCUMENT_OUTCOME_CREATED, 2, ""),
        ("doc-3", DocumentOutcome.DOCUMENT_OUTCOME_REFUSED, 0, "DOCUMENT_EMPTY"),
    )
    for version, (name, outcome, chunk_count, reason) in enumerate(outcomes, start=1):
        message = DocumentIndexed(
            document_id=name, outcome=outcome, chunk_count=chunk_count, error_reason=reason, corpus_version=version
        )
        message.index_time.FromDatetime(now)
        yield Example(topics.DOCUMENT_INDEXED, f"d-{name}", message)
    retracted = DocumentIndexed(
        document_id="doc-1",
        outcome=DocumentOutcome.DOCUMENT_OUTCOME_RETRACTED,
        revision=1,
        corpus_version=4,
        retract_reason="out of date",
    )
    retracted.index_time.FromDatetime(now)
    yield Example(topics.DOCUMENT_INDEXED, "d-doc-1-retracted", retracted)
