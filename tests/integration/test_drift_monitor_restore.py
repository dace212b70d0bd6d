"""A restart of the drift monitor against a real ClickHouse engine: the store's rows give back windows and alerts."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

import pytest
from aiokafka import ConsumerRecord
from google.protobuf.message import Message

from binnacle.events.v1.evaluation_scored_pb2 import EvaluationScored
from binnacle.events.v1.guardrail_decided_pb2 import GuardrailDecided
from binnacle.events.v1.interaction_completed_pb2 import InteractionCompleted, InteractionOutcome
from servicekit.adapters.memory.event_bus import MemoryEventBus
from servicekit.adapters.registry import open_analytics_store
from servicekit.events.topics import (
    DRIFT_ALERTED,
    EVALUATION_SCORED,
    GUARDRAIL_DECIDED,
    INTERACTION_COMPLETED,
    TOPICS,
)
from servicekit.ports.analytics_store import AnalyticsStore
from servicekit.ports.clock import SystemClock
from servicekit.ports.event_bus import OutgoingEvent
from services.analytics.migrations import migrate, read_migrations
from services.analytics.record_bytes import RowEncoder
from services.analytics.tables import read_tables
from services.drift_monitor.config import Settings
from services.drift_monitor.events import DriftMonitorEvents
from services.drift_monitor.traffic import ObservedRequest
from services.drift_monitor.watching import Watch
from tests.clickhouse_process import FrontProcess, running_front
from tests.unit.drift_monitor.drift_fakes import MeansLaboratory

MIGRATIONS = Path(__file__).parents[2] / "infra/clickhouse/migrations"
START = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    """One engine for the module."""
    with running_front(tmp_path_factory.mktemp("front")) as front:
        yield front


@pytest.fixture
async def store(front: FrontProcess) -> AsyncIterator[AnalyticsStore]:
    """Its database, migrated."""
    async with open_analytics_store(front.store_url) as store:
        await migrate(store, read_migrations(MIGRATIONS))
        yield store


def watch_over(bus: MemoryEventBus, store: AnalyticsStore) -> Watch:
    """A drift monitor as bootstrap wires it, means for statistics."""
    return Watch(Settings(), publisher=bus, store=store, laboratory=MeansLaboratory(), clock=SystemClock())


def interaction(place: int) -> InteractionCompleted:
    """Number `place`: steady for thirty, then with longer questions; outcomes and chunks vary."""
    blocked = place % 11 == 3
    message = InteractionCompleted(
        request_id=f"r-{place:03}",
        outcome=(
            InteractionOutcome.INTERACTION_OUTCOME_BLOCKED
            if blocked
            else InteractionOutcome.INTERACTION_OUTCOME_ANSWERED
        ),
        query="wörd\n\u00a0über  " * ((5 if place < 30 else 15) + place % 2),
        answer="" if blocked else "an answer of words",
        route="docs",
        duration_us=50_000 + place,
        time_to_first_token_us=9_000,
        cost_microusd=place % 3,
    )
    message.complete_time.FromDatetime(START + timedelta(seconds=place, microseconds=place))
    if not blocked:
        message.chunks.add(content_hash="a", rank=1, score=0.5 + place % 5 / 10, used=True)
    else:
        message.verdicts.add(detector="pii.email", action=4)
    return message


async def talk(bus: MemoryEventBus, count: int) -> None:
    """Interactions with a score and a decision each, and things that no window holds."""

    async def publish(topic: str, message: Message, request_id: str) -> None:
        event_id = f"{topic}/{request_id}/{len(bus.published)}"
        await bus.publish(OutgoingEvent(topic, request_id, event_id, "acme", message))

    for place in range(count):
        request = interaction(place)
        await publish(INTERACTION_COMPLETED, request, request.request_id)
        score = EvaluationScored(request_id=request.request_id, metric="groundedness", value=0.9 - place % 3 / 100)
        score.interaction_time.CopyFrom(request.complete_time)
        await publish(EVALUATION_SCORED, score, request.request_id)
        decision = GuardrailDecided(request_id=request.request_id, action=2 if place % 7 == 0 else 1)
        decision.decide_time.CopyFrom(request.complete_time)
        await publish(GUARDRAIL_DECIDED, decision, request.request_id)
    shadow = interaction(99)
    shadow.shadow_of = "r-001"
    await publish(INTERACTION_COMPLETED, shadow, shadow.request_id)
    unmeasured = EvaluationScored(request_id="r-001", metric="context_relevance", unmeasured_reason="NO_CHUNKS")
    await publish(EVALUATION_SCORED, unmeasured, "r-001")
    await bus.drain()


async def sink(bus: MemoryEventBus, store: AnalyticsStore) -> None:
    """Insert every record of the topics, as analytics does."""
    tables = await read_tables(store)
    for topic in (INTERACTION_COMPLETED, EVALUATION_SCORED, GUARDRAIL_DECIDED, DRIFT_ALERTED):
        table = tables[topic]
        encoder = RowEncoder(topic, message_name=TOPICS[topic].message)
        rows = [
            encoder.encode(
                ConsumerRecord(
                    topic=topic,
                    partition=record.partition,
                    offset=record.offset,
                    timestamp=int(record.time.timestamp() * 1_000),
                    timestamp_type=0,
                    key=record.key,
                    value=record.value,
                    checksum=None,
                    serialized_key_size=0,
                    serialized_value_size=0,
                    headers=record.headers,
                )
            )
            for record in bus.records(topic)
        ]
        await store.insert_bytes(table.insert_sql, b"".join(chain.from_iterable(rows)), settings=table.settings)


def by_id(requests: Iterator[ObservedRequest]) -> dict[str, ObservedRequest]:
    """Requests by their ids."""
    return {request.request_id: request for request in requests}


async def test_a_restart_has_the_same_windows_and_raises_nothing_again(store: AnalyticsStore) -> None:
    """What events gave and what rows give is the same: times, signals, windows, alerts and their states."""
    bus = MemoryEventBus()
    first = watch_over(bus, store)
    for subscription in DriftMonitorEvents(first.monitor).subscriptions():
        bus.subscribe(subscription)
    await bus.start_consuming()
    await talk(bus, 56)
    await bus.stop_consuming()
    await first.monitor.judge_changed()
    (fired,) = first.monitor.book.of_tenant("acme")
    acknowledged = first.monitor.book.acknowledge(fired.alert_id, tenant="acme", by="ann", note="looking")
    await first.publisher.drain()
    await sink(bus, store)

    second = watch_over(MemoryEventBus(), store)
    assert await second.restorer.try_restore()
    assert by_id(second.monitor._traffic.requests()) == by_id(first.monitor._traffic.requests())
    assert list(second.monitor.book.of_tenant("acme")) == [acknowledged]
    await second.monitor.judge_changed()
    await second.publisher.drain()
    assert list(second.monitor.book.of_tenant("acme")) == [acknowledged]
