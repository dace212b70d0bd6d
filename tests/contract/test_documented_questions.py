"""The questions that analysts copy find what they ask for in a store where it happened."""

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.message import Message

from binnacle.drift_monitor.v1 import drift_monitor_service_pb2 as drift
from binnacle.events.v1.document_indexed_pb2 import DOCUMENT_OUTCOME_UPDATED, DocumentIndexed
from binnacle.events.v1.drift_alerted_pb2 import DriftAlerted
from binnacle.events.v1.evaluation_scored_pb2 import EvaluationScored
from binnacle.events.v1.feedback_recorded_pb2 import (
    FEEDBACK_TYPE_RATING,
    FEEDBACK_TYPE_THUMBS,
    FeedbackRecorded,
)
from binnacle.events.v1.guardrail_decided_pb2 import GuardrailDecided
from binnacle.events.v1.interaction_completed_pb2 import (
    INTERACTION_OUTCOME_ANSWERED,
    INTERACTION_OUTCOME_REFUSED,
    InteractionCompleted,
)
from binnacle.type.v1 import verdict_pb2
from servicekit.adapters.clickhouse.analytics_store import open_analytics_store
from servicekit.events.topics import TOPICS
from services.analytics.config import Settings
from services.analytics.migrations import migrate, read_migrations
from services.analytics.record_bytes import varint
from services.analytics.rollups import RollupKeeper
from services.analytics.tables import read_tables
from tests.clickhouse_process import FrontProcess, running_front

_YESTERDAY = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
_TEXT = (Settings().migrations_dir.parent / "QUESTIONS.md").read_text()
_QUESTIONS = dict(re.findall(r"^\d+\. ([^\n]+)\n\n```sql\n(.*?)```", _TEXT, re.DOTALL | re.MULTILINE))


def _interactions() -> Iterator[InteractionCompleted]:
    """An answer from a revision that has been replaced since, after an engine failed; and a refusal."""
    answered = InteractionCompleted(
        request_id="r1",
        outcome=INTERACTION_OUTCOME_ANSWERED,
        query="What does mooring cost?",
        answer="Nine euros.",
        route="default",
        model="default",
        cost_microusd=900,
        duration_us=800_000,
        time_to_first_token_us=200_000,
    )
    answered.prompt.version = "3"
    answered.attempts.add(number=1, engine="tgi-1", model="m", error_reason="OVERLOADED", duration_us=9)
    answered.attempts.add(number=2, engine="tgi-2", model="m", cost_microusd=900, duration_us=700_000)
    answered.timings.add(stage="generate", duration_us=700_000)
    for chunk in ("c1", "c2"):
        answered.chunks.add(chunk_id=chunk, document_id="harbour", revision=1, used=True)
    answered.citations.add(chunk_id="c1", document_id="harbour", revision=1, title="Harbour rules")
    answered.degradations.add(rung="fallback_model", cause="OVERLOADED")
    refused = InteractionCompleted(request_id="r2", outcome=INTERACTION_OUTCOME_REFUSED, query="Who won?")
    for interaction in (answered, refused):
        interaction.complete_time.FromDatetime(_YESTERDAY)
        yield interaction


def _judgements() -> Iterator[Message]:
    """What evaluator, people, guardrail, drift monitor and retriever said of them."""
    for metric, value in (("groundedness", 0.2), ("answer_relevance", 0.9)):
        score = EvaluationScored(
            evaluation_id=metric,
            request_id="r1",
            metric=metric,
            value=value,
            inclusion_probability=1,
            prompt_version="3",
        )
        score.interaction_time.FromDatetime(_YESTERDAY)
        yield score
    yield FeedbackRecorded(feedback_id="f1", request_id="r1", kind=FEEDBACK_TYPE_RATING, rating=1, comment="wrong")
    yield FeedbackRecorded(feedback_id="f2", request_id="r1", kind=FEEDBACK_TYPE_THUMBS, thumbs_up=False)
    decided = GuardrailDecided(request_id="r1", surface=verdict_pb2.SURFACE_INPUT, action=verdict_pb2.ACTION_FLAG)
    decided.verdicts.add(surface=verdict_pb2.SURFACE_INPUT, detector="injection", action=verdict_pb2.ACTION_FLAG)
    yield decided
    alerted = DriftAlerted()
    alerted.alert.alert_id, alerted.alert.alert_key = "a1", "groundedness/default"
    alerted.alert.state, alerted.alert.severity = drift.ALERT_STATE_FIRING, drift.SEVERITY_WARNING
    yield alerted
    yield DocumentIndexed(document_id="harbour", outcome=DOCUMENT_OUTCOME_UPDATED, revision=2)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    """A store in which all of that is, and its minutes are counted."""
    with running_front(tmp_path_factory.mktemp("front")) as front:
        asyncio.run(_fill(front))
        yield front


async def _fill(front: FrontProcess) -> None:
    async with open_analytics_store(front.store_url) as store:
        await migrate(store, read_migrations(Settings().migrations_dir))
        tables = {TOPICS[topic].message: table for topic, table in (await read_tables(store)).items()}
        for number, message in enumerate([*_interactions(), *_judgements()]):
            table = tables[message.DESCRIPTOR.full_name]
            body = message.SerializeToString() + _envelope(table.topic, f"e{number}")
            await store.insert_bytes(table.insert_sql, varint(len(body)) + body, settings=table.settings)
        await store.execute(
            "INSERT INTO stream_gaps (topic, partition, first_offset, last_offset) VALUES ('t', 0, 1, 2)"
        )
        keeper = RollupKeeper(store, every_s=5.0, insert_within_s=60.0)
        for rollup in keeper.rollups:
            await keeper.bring_up(rollup)


def _envelope(topic: str, event_id: str) -> bytes:
    fields = ((50001, topic), (50002, "acme"), (50003, "test"), (50009, event_id))
    return b"".join(varint(number << 3 | 2) + varint(len(text)) + text.encode() for number, text in fields)


def test_there_are_twenty_questions() -> None:
    """Each has its number, its words and its statement."""
    assert len(_QUESTIONS) == len(re.findall("```sql", _TEXT)) == 20


@pytest.mark.parametrize("question", _QUESTIONS)
async def test_a_question_finds_what_it_asks_for(front: FrontProcess, question: str) -> None:
    """A misspelt column fails, and so does a condition that can never hold."""
    async with open_analytics_store(front.store_url) as store:
        assert await store.query(_QUESTIONS[question])
