"""Poison in a topic against real processes: one record is put aside, many stop the topic, replays change no count."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from binnacle.events.v1.feedback_recorded_pb2 import FeedbackRecorded
from binnacle_client.dead_letters import FoundLetter, open_desk
from servicekit.adapters.clickhouse.analytics_store import ClickHouseAnalyticsStore, open_analytics_store
from servicekit.adapters.kafka.topic_setup import create_missing_topics
from servicekit.domain.envelope import Envelope
from servicekit.events.codec import encode_headers
from servicekit.events.topics import FEEDBACK_RECORDED, TOPICS
from servicekit.ports.clock import SystemClock
from services.analytics.batching import Limits
from services.analytics.config import Settings
from services.analytics.migrations import migrate, read_migrations
from services.analytics.sink import Sink
from services.analytics.sink_session import SinkSettings
from services.local.broker import run_broker
from tests.bench.poison import measure
from tests.clickhouse_process import running_front

pytestmark = pytest.mark.slow

_DEAD_LETTERS = [(spec.name, "analytics") for spec in TOPICS.values() if "analytics" in spec.consumers]


async def test_one_poison_in_a_hundred_thousand_and_one_in_five(tmp_path: Path) -> None:
    """One dead letter with its reason, 99,999 stored, beside a clean run; one in five stops the topic and says why."""
    with running_front(tmp_path) as front:
        found = await measure(front.store_url, events=100_000)
    print(found)
    assert (found["dead_letters"], found["stored"]) == (1, 99_999)
    assert found["dead_letter_stage"] == "apply"
    assert found["dead_letter_reason"]
    assert found["ratio"] > 0.3  # a machine with other work; what it costs is a handful of inserts
    assert found["stops_at_20_percent"]
    assert "records were refused" in found["stop_reason"]
    assert found["committed_at_20_percent"] == 0
    assert found["dead_letters_at_20_percent"] <= 50


@asynccontextmanager
async def _sink(store: ClickHouseAnalyticsStore, bootstrap: str) -> AsyncIterator[Sink]:
    sink = Sink(
        store,
        servers=[bootstrap],
        instance=None,
        create_topics=partial(create_missing_topics, [bootstrap], dead_letters=_DEAD_LETTERS),
        clock=SystemClock(),
        settings=SinkSettings(limits=Limits(max_age_s=0.1)),
    )
    task = asyncio.create_task(sink.run())
    try:
        yield sink
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _send(bootstrap: str, *, good: int, bad_every: int, prefix: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for number in range(good):
            bad = bool(bad_every) and number % bad_every == bad_every - 1
            message = FeedbackRecorded(feedback_id=f"{prefix}{number}", request_id=f"r{number}", rating=3)
            message.record_time.GetCurrentTime()
            envelope = Envelope(
                id=f"{prefix}{number}",
                source="upstream",
                type=FeedbackRecorded.DESCRIPTOR.full_name,
                tenant="acme",
                producer=f"{prefix}-producer",
                sequence=number + 1,
            )
            value = b"\x0a\xff\xff\xff\x0f rubbish" if bad else message.SerializeToString()
            await producer.send(FEEDBACK_RECORDED, value, key=b"k", headers=list(encode_headers(envelope)))


async def _eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.1)


async def _count(store: ClickHouseAnalyticsStore, table: str) -> int:
    return int((await store.query(f"SELECT count() AS n FROM {table}"))[0]["n"])


async def _letters(bootstrap: str) -> list[FoundLetter]:
    async with open_desk(bootstrap) as desk:
        return [letter async for letter in desk.read(desk.topics(topic=FEEDBACK_RECORDED, group="analytics"))]


async def _committed(bootstrap: str) -> int:
    """What the sink's group has committed of the topic, over all partitions."""
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap, group_id="analytics", enable_auto_commit=False
    ) as consumer:
        found = [await consumer.committed(TopicPartition(FEEDBACK_RECORDED, number)) for number in range(6)]
    return sum(offset or 0 for offset in found)


async def check_poison_and_replay(bootstrap: str, store: ClickHouseAnalyticsStore) -> None:
    """On any Kafka: some poison is put aside, and replayed twice changes no count; much of it stops the topic."""
    await create_missing_topics([bootstrap], dead_letters=_DEAD_LETTERS)
    await _send(bootstrap, good=200, bad_every=20, prefix="a")
    async with _sink(store, bootstrap) as sink:

        async def all_buried() -> bool:
            return await _count(store, "feedback") == 190 and len(await _letters(bootstrap)) == 10

        await _eventually(all_buried)
        await sink.health.ping()
        # Mended: the same records with bytes that parse, as a fixed consumer would read them.
        await _replay_mended(bootstrap, await _letters(bootstrap))
        await _replay_mended(bootstrap, await _letters(bootstrap))
        await _send(bootstrap, good=1, bad_every=0, prefix="b")

        async def all_stored() -> bool:
            return await _count(store, "feedback") == 201

        await _eventually(all_stored)
        copies = await store.query(
            "SELECT uniqExact(sequence) AS sequences, uniqExact(offset) AS offsets, max(sequence) AS last "
            "FROM event_ledger WHERE producer = 'a-producer'"
        )
        assert copies == [{"sequences": 200, "offsets": 200, "last": 200}]
        assert len(await _letters(bootstrap)) == 10
        before = await _committed(bootstrap)
        await _send(bootstrap, good=500, bad_every=5, prefix="c")

        async def stopped() -> bool:
            return FEEDBACK_RECORDED in sink.health.stopped

        await _eventually(stopped)
        assert "records were refused" in str(sink.health.stopped[FEEDBACK_RECORDED])
    committed = await _committed(bootstrap)
    buried = {letter.burial.origin.offset for letter in await _letters(bootstrap)}
    assert before <= committed < 201 + 500
    # All that was passed over for good is stored or buried: what lies behind the commit is read again after a restart.
    stored = {row["offset"] for row in await store.query("SELECT DISTINCT offset FROM event_ledger")}
    assert set(range(committed)) <= stored | buried
    assert len(buried) <= 10 + 100


async def _replay_mended(bootstrap: str, letters: list[FoundLetter]) -> None:
    mended = []
    for letter in letters:
        message = FeedbackRecorded(feedback_id="mended", rating=1)
        message.record_time.FromDatetime(letter.burial.origin.time)
        mended.append(replace(letter, value=message.SerializeToString()))
    async with open_desk(bootstrap) as desk:
        assert await desk.replay(mended) == len(letters)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ClickHouseAnalyticsStore]:
    """An empty, migrated store."""
    with running_front(tmp_path) as front:
        async with open_analytics_store(front.store_url) as store:
            await store.create_database()
            await migrate(store, read_migrations(Settings().migrations_dir))
            yield store


async def test_poison_and_replay_on_the_embedded_broker(store: ClickHouseAnalyticsStore) -> None:
    """Put aside, replayed, stopped."""
    async with run_broker() as addresses:
        await check_poison_and_replay(addresses.bootstrap, store)


@pytest.mark.servers
async def test_poison_and_replay_on_a_real_kafka(store: ClickHouseAnalyticsStore, real_kafka: str) -> None:
    """The same on a broker that keeps its topics on disk."""
    admin = AIOKafkaAdminClient(bootstrap_servers=real_kafka)
    await admin.start()
    try:
        async with asyncio.timeout(20):
            while ours := [name for name in await admin.list_topics() if name.startswith("binnacle.")]:
                await admin.delete_topics(ours)
    finally:
        await admin.close()
    await check_poison_and_replay(real_kafka, store)
