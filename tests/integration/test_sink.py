"""Events into ClickHouse through real processes: counted once, whatever is killed on the way."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from binnacle.events.v1.feedback_recorded_pb2 import FeedbackRecorded
from servicekit.adapters.clickhouse.analytics_store import ClickHouseAnalyticsStore, open_analytics_store
from servicekit.adapters.kafka.topic_setup import create_missing_topics
from servicekit.adapters.registry import open_event_bus
from servicekit.domain.envelope import Envelope
from servicekit.domain.identity import ServiceIdentity, new_identity
from servicekit.errors import BinnacleError
from servicekit.events.codec import encode_headers
from servicekit.events.topics import FEEDBACK_RECORDED, dead_letter_topic
from servicekit.ports.clock import SystemClock
from servicekit.ports.event_bus import EventBus, OutgoingEvent
from services.analytics.batching import Limits
from services.analytics.completeness import COUNTED_TOPICS, Completeness, account_for
from services.analytics.config import Settings
from services.analytics.migrations import migrate, read_migrations
from services.analytics.sink import Sink
from services.analytics.sink_session import SinkSettings
from services.analytics.window import Window
from services.local.broker import run_broker
from tests.clickhouse_process import FrontProcess, running_front

pytestmark = pytest.mark.slow

_QUICK = SinkSettings(limits=Limits(max_age_s=0.1))


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    """One front for the module."""
    with running_front(tmp_path_factory.mktemp("front")) as front:
        yield front


@pytest.fixture
async def store(front: FrontProcess) -> AsyncIterator[ClickHouseAnalyticsStore]:
    """An empty, migrated store."""
    async with open_analytics_store(front.store_url) as store:
        await store.execute("DROP DATABASE IF EXISTS binnacle SYNC")
        await store.create_database()
        await migrate(store, read_migrations(Settings().migrations_dir))
        yield store


@pytest.fixture
async def broker() -> AsyncIterator[str]:
    """The address of an embedded broker."""
    async with run_broker() as addresses:
        yield addresses.bootstrap


@asynccontextmanager
async def _running_sink(store: ClickHouseAnalyticsStore, broker: str) -> AsyncIterator[None]:
    sink = Sink(
        store,
        servers=[broker],
        instance=None,
        create_topics=partial(create_missing_topics, [broker]),
        clock=SystemClock(),
        settings=_QUICK,
    )
    task = asyncio.create_task(sink.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _identity() -> ServiceIdentity:
    return new_identity("gateway", start_time=datetime.now(UTC))


async def _publish(bus: EventBus, name: str) -> None:
    message = FeedbackRecorded(feedback_id=name, request_id=f"r-{name}", rating=5, comment="c" * 100)
    message.record_time.GetCurrentTime()
    await bus.publish(OutgoingEvent(FEEDBACK_RECORDED, f"r-{name}", name, "acme", message))


async def _publish_many(bus: EventBus, count: int, *, prefix: str) -> None:
    for start in range(0, count, 200):
        await asyncio.gather(*(_publish(bus, f"{prefix}-{n}") for n in range(start, min(start + 200, count))))


async def _count(store: ClickHouseAnalyticsStore) -> int:
    return int((await store.query("SELECT count() AS n FROM feedback"))[0]["n"])


async def _eventually(condition: Callable[[], Awaitable[bool]], *, within_s: float = 45) -> None:
    async with asyncio.timeout(within_s):
        while True:
            with suppress(BinnacleError):
                if await condition():
                    return
            await asyncio.sleep(0.05)


async def _stored(store: ClickHouseAnalyticsStore, count: int) -> None:
    async def reached() -> bool:
        return await _count(store) >= count

    await _eventually(reached)
    assert await _count(store) == count


async def _account(store: ClickHouseAnalyticsStore) -> Completeness:
    now = datetime.now(UTC)
    window = Window(now - timedelta(hours=1), now + timedelta(minutes=1))
    return await account_for(store, topics=COUNTED_TOPICS, window=window, now=now)


async def test_what_is_published_is_stored_with_its_envelope(store: ClickHouseAnalyticsStore, broker: str) -> None:
    """Columns come from the message, and from where and by whom it was sent."""
    async with (
        open_event_bus(f"kafka://{broker}", identity=_identity(), clock=SystemClock()) as bus,
        _running_sink(store, broker),
    ):
        await _publish(bus, "one")
        await _stored(store, 1)
    row = (await store.query("SELECT * FROM feedback"))[0]
    assert (row["feedback_id"], row["rating"], row["kind"]) == ("one", 5, "UNSPECIFIED")
    assert (row["tenant"], row["event_source"], row["event_id"], row["event_sequence"]) == ("acme", "gateway", "one", 1)
    assert row["kafka_topic"] == FEEDBACK_RECORDED
    assert abs(row["record_time"] - datetime.now(UTC)) < timedelta(minutes=1)
    assert abs(row["event_time"] - row["record_time"]) < timedelta(minutes=1)


async def test_an_event_published_twice_counts_once(store: ClickHouseAnalyticsStore, broker: str) -> None:
    """A repeat has the same event id and a later time; the ledger still knows both."""
    async with open_event_bus(f"kafka://{broker}", identity=_identity(), clock=SystemClock()) as bus:
        async with _running_sink(store, broker):
            await _publish(bus, "one")
            await _publish(bus, "one")
            await _publish(bus, "two")

            async def all_three() -> bool:
                return (await store.query("SELECT count() AS n FROM event_ledger"))[0]["n"] >= 3

            await _eventually(all_three)
        assert await _count(store) == 2
        assert sum(account.stored.count for account in (await _account(store)).accounts) == 3


async def test_poison_becomes_a_dead_letter_with_its_original_bytes(
    store: ClickHouseAnalyticsStore, broker: str
) -> None:
    """A message that does not parse and a record without an envelope are put aside; the rest is stored."""
    envelope = Envelope(
        id="bad", source="s", type=FeedbackRecorded.DESCRIPTOR.full_name, tenant="acme", producer="", sequence=0
    )
    corrupt = b"\x0a\xff\xff\xff\x0f rubbish"
    async with open_event_bus(f"kafka://{broker}", identity=_identity(), clock=SystemClock()) as bus:
        producer = AIOKafkaProducer(bootstrap_servers=broker)
        await producer.start()
        await _publish_many(bus, 50, prefix="before")
        await producer.send_and_wait(FEEDBACK_RECORDED, corrupt, key=b"k", headers=list(encode_headers(envelope)))
        await producer.send_and_wait(FEEDBACK_RECORDED, b"no envelope", key=b"k")
        await _publish_many(bus, 50, prefix="after")
        await producer.stop()
        async with _running_sink(store, broker):
            await _stored(store, 100)
            letters = await _dead_letters(broker, 2)
    assert sorted(value for value, _headers in letters) == sorted([corrupt, b"no envelope"])
    assert {headers["dlq-stage"] for _value, headers in letters} == {b"apply", b"envelope"}


async def _dead_letters(broker: str, count: int) -> Sequence[tuple[bytes, dict[str, bytes]]]:
    consumer = AIOKafkaConsumer(
        dead_letter_topic(FEEDBACK_RECORDED, "analytics"), bootstrap_servers=broker, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        async with asyncio.timeout(20):
            return [(record.value, dict(record.headers)) for record in [await consumer.getone() for _ in range(count)]]
    finally:
        await consumer.stop()


async def test_a_broker_reborn_empty_is_read_from_its_beginning(store: ClickHouseAnalyticsStore) -> None:
    """The embedded broker forgets everything and moves; the sink finds it and goes on at offset 0."""
    async with run_broker() as first:
        port = int(first.bootstrap.rpartition(":")[2])
        sink = _running_sink(store, first.bootstrap)
        await sink.__aenter__()
        async with open_event_bus(f"kafka://{first.bootstrap}", identity=_identity(), clock=SystemClock()) as bus:
            await _publish_many(bus, 300, prefix="first")
            await _stored(store, 300)
    try:
        async with (
            run_broker(port=port) as second,
            open_event_bus(f"kafka://{second.bootstrap}", identity=_identity(), clock=SystemClock()) as bus,
        ):
            await _publish_many(bus, 100, prefix="second")
            await _stored(store, 400)
            await sink.__aexit__(None, None, None)
    except BaseException:
        await sink.__aexit__(None, None, None)
        raise


class _ServiceProcess:
    """`python -m services.analytics`, killed and started again."""

    def __init__(self, *, store_url: str, broker: str, folder: Path) -> None:
        self._environment = {
            **os.environ,
            "BINNACLE_ANALYTICS__PORT": "0",
            "BINNACLE_ANALYTICS__METRICS_PORT": "0",
            "BINNACLE_ANALYTICS__EVENT_BUS_URL": f"kafka://{broker}?instance=a0",
            "BINNACLE_ANALYTICS__ANALYTICS_STORE_URL": store_url,
            "BINNACLE_ANALYTICS__BATCH_AGE_S": "0.1",
            "BINNACLE_ANALYTICS__STATE_DIR": str(folder),
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; it becomes ready by itself."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.analytics",
            env=self._environment,
            stderr=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )

    async def end(self, number: signal.Signals) -> int:
        """Send the signal and wait for the end."""
        assert self._process is not None
        self._process.send_signal(number)
        async with asyncio.timeout(30):
            return await self._process.wait()


async def test_kills_change_no_count(
    store: ClickHouseAnalyticsStore, front: FrontProcess, broker: str, tmp_path: Path
) -> None:
    """SIGKILL of the sink amid its batches, then of ClickHouse, while events flow: all are counted, once."""
    service = _ServiceProcess(store_url=front.store_url, broker=broker, folder=tmp_path)
    await service.start()

    async def half_way(share: int) -> None:
        async def reached() -> bool:
            return await _count(store) >= share

        await _eventually(reached)

    async with open_event_bus(f"kafka://{broker}", identity=_identity(), clock=SystemClock()) as bus:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_publish_many(bus, 20_000, prefix="k"))
            await half_way(1)
            await service.end(signal.SIGKILL)
            await service.start()
        await half_way(20_000)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_publish_many(bus, 5_000, prefix="l"))
            await asyncio.to_thread(front.kill)
            await asyncio.to_thread(front.start)
        await _stored(store, 25_000)
    # The bus is closed: its last report is final, and everything is accounted for.

    async def closed() -> bool:
        return (await _account(store)).complete

    await _eventually(closed)
    account = await _account(store)
    assert (account.missing, account.evicted) == (0, 0)
    assert sum(one.span.accepted for one in account.accounts) == 25_000
    assert await service.end(signal.SIGTERM) == 0
