"""The sink stores before it commits, commits only what is its own, and pauses rather than grow."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from servicekit.domain.envelope import Envelope
from servicekit.errors import BackendUnavailable
from servicekit.events.codec import encode_headers
from servicekit.events.dead_letters import DeadLetter
from servicekit.events.topics import DRIFT_ALERTED, FEEDBACK_RECORDED, TOPICS
from servicekit.ports.clock import SystemClock
from services.analytics.batching import Limits
from services.analytics.sink_session import BrokerLostError, SinkSession, SinkSettings
from services.analytics.tables import TopicTable
from services.analytics.writing import BatchWriter
from tests.unit.analytics.analytics_fakes import RecordingStore

_PARTITION = TopicPartition(FEEDBACK_RECORDED, 0)
_TABLES = {topic: TopicTable(topic, "t", f"INSERT INTO {topic}", {}) for topic in (FEEDBACK_RECORDED, DRIFT_ALERTED)}
_AT_ONCE = Limits(max_rows=1)


class FakeConsumer:
    """Gives what `give` put in; remembers commits and pauses. Fetching is paced by `asyncio.sleep(0)`."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]] = asyncio.Queue()
        self.owned = {_PARTITION, TopicPartition(DRIFT_ALERTED, 0)}
        self.commits: list[dict[TopicPartition, int]] = []
        self.held: set[TopicPartition] = set()
        self.listener: SinkSession | None = None
        self.answers = True

    def subscribe(self, _topics: Sequence[str], *, listener: SinkSession) -> None:
        """Keep the listener."""
        self.listener = listener

    def give(self, *offsets: int, topic: str = FEEDBACK_RECORDED, size: int = 1) -> None:
        """One fetch of these offsets."""
        records = [_record(offset, topic=topic, size=size) for offset in offsets]
        self.waiting.put_nowait({TopicPartition(topic, 0): records})

    async def getmany(self, **_bounds: int) -> dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]:
        """The next fetch, or nothing."""
        await asyncio.sleep(0)
        return {} if self.waiting.empty() or self.held else self.waiting.get_nowait()

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        """Remember them."""
        self.commits.append(offsets)

    async def topics(self) -> set[str]:
        """The probe."""
        if not self.answers:
            raise KafkaError
        return set()

    def assignment(self) -> set[TopicPartition]:
        """What is owned."""
        return self.owned

    def paused(self) -> set[TopicPartition]:
        """What is paused."""
        return self.held

    def pause(self, *partitions: TopicPartition) -> None:
        """Pause."""
        self.held |= set(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        """Go on."""
        self.held -= set(partitions)

    def highwater(self, _partition: TopicPartition) -> int:
        """Unknown."""
        return 0


def _record(offset: int, *, topic: str, size: int) -> ConsumerRecord[bytes, bytes]:
    envelope = Envelope(
        id=f"e{offset}", source="s", type=TOPICS[topic].message, tenant="acme", producer="p", sequence=offset + 1
    )
    return ConsumerRecord(topic, 0, offset, 0, 0, b"k", b"\x12" * size, None, 1, size, encode_headers(envelope))


async def _no_letter(_letter: DeadLetter) -> None:
    raise AssertionError("nothing here is a dead letter")


@asynccontextmanager
async def _running(
    consumer: FakeConsumer, store: RecordingStore, *, limits: Limits = _AT_ONCE, max_buffered_bytes: int = 1 << 20
) -> AsyncIterator[asyncio.Task[None]]:
    session = SinkSession(
        consumer,
        tables=_TABLES,
        writer=BatchWriter(store, group="analytics", send_dead_letter=_no_letter),
        clock=SystemClock(),
        settings=SinkSettings(limits=limits, max_buffered_bytes=max_buffered_bytes),
    )
    task = asyncio.create_task(session.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_offsets_are_committed_behind_the_insert() -> None:
    """Rows are stored, and then exactly their offsets are committed."""
    consumer, store = FakeConsumer(), RecordingStore()
    async with _running(consumer, store):
        consumer.give(0, 1, 2)
        await _until(lambda: consumer.commits)
    assert len(store.inserts) == 1
    assert consumer.commits == [{_PARTITION: 3}]


async def test_nothing_is_committed_while_the_store_is_away() -> None:
    """An outage only lags: the same batch is stored and committed when the store is back."""
    failures = iter([True, True, False])

    def away(_body: bytes) -> None:
        if next(failures, False):
            raise BackendUnavailable("away")

    consumer, store = FakeConsumer(), RecordingStore(refuse=away)
    async with _running(consumer, store):
        consumer.give(0)
        await _until(lambda: consumer.commits)
    assert len(store.inserts) == 1
    assert consumer.commits == [{_PARTITION: 1}]


async def test_a_partition_that_was_taken_away_is_not_committed() -> None:
    """Stored rows of a lost partition are read again by its new owner, and collapse."""
    consumer, store = FakeConsumer(), RecordingStore()
    consumer.owned = {TopicPartition(DRIFT_ALERTED, 0)}
    async with _running(consumer, store):
        consumer.give(0)
        await _until(lambda: store.inserts)
        await asyncio.sleep(0)
    assert consumer.commits == []


async def test_a_batch_of_an_earlier_assignment_is_not_committed() -> None:
    """After a rebalance positions come from the commits: an older batch must not move them."""
    consumer, store = FakeConsumer(), RecordingStore()
    rebalanced = asyncio.Event()

    def away(_body: bytes) -> None:
        if not rebalanced.is_set():
            raise BackendUnavailable("away")

    store.refuse = away
    async with _running(consumer, store):
        consumer.give(0)
        await _until(consumer.waiting.empty)
        assert consumer.listener is not None
        await consumer.listener.on_partitions_assigned([_PARTITION])
        rebalanced.set()
        await _until(lambda: store.inserts)
        await asyncio.sleep(0)
    assert consumer.commits == []


async def test_fetching_pauses_above_the_limit_and_goes_on_below() -> None:
    """Memory is bounded while the store is away; what is not fetched stays in Kafka."""
    gone = True

    def away(_body: bytes) -> None:
        if gone:
            raise BackendUnavailable("away")

    consumer, store = FakeConsumer(), RecordingStore(refuse=away)
    async with _running(consumer, store, max_buffered_bytes=1000):
        consumer.give(0, size=2000)
        await _until(lambda: consumer.held)
        gone = False
        await _until(lambda: not consumer.held)
    assert consumer.commits == [{_PARTITION: 1}]


async def test_offsets_that_were_lost_are_told() -> None:
    """A jump in a partition's offsets is written to stream_gaps with the rows behind it."""
    consumer, store = FakeConsumer(), RecordingStore()
    async with _running(consumer, store):
        consumer.give(0)
        consumer.give(5)
        await _until(lambda: len(consumer.commits) == 2)
    gaps = [body for sql, body in store.inserts if "stream_gaps" in sql]
    assert len(gaps) == 1
    assert b'"first_offset": 1' in gaps[0]
    assert b'"last_offset": 4' in gaps[0]


async def test_a_compacted_topic_may_jump() -> None:
    """Compaction takes offsets away by design."""
    consumer, store = FakeConsumer(), RecordingStore()
    async with _running(consumer, store):
        consumer.give(0, topic=DRIFT_ALERTED)
        consumer.give(5, topic=DRIFT_ALERTED)
        await _until(lambda: len(consumer.commits) == 2)
    assert not [body for sql, body in store.inserts if "stream_gaps" in sql]


async def test_a_stop_stores_and_commits_what_is_in_hand() -> None:
    """A clean end leaves nothing to read twice."""
    consumer, store = FakeConsumer(), RecordingStore()
    async with _running(consumer, store, limits=Limits()):
        consumer.give(0, 1)
        await _until(consumer.waiting.empty)
        await asyncio.sleep(0)
        assert consumer.commits == []
    assert consumer.commits == [{_PARTITION: 2}]


async def test_an_error_of_the_client_ends_the_session_as_itself() -> None:
    """What a fetch raises comes out unwrapped, so that the sink goes on with a new consumer instead of dying."""

    class Failing(FakeConsumer):
        async def getmany(self, **_bounds: int) -> dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]:
            """Refuse."""
            raise TopicAuthorizationFailedError

    async with _running(Failing(), RecordingStore()) as task:
        with pytest.raises(TopicAuthorizationFailedError):
            await task


async def test_brokers_that_never_answer_end_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is probed; a client whose brokers are gone is given up for a fresh one."""
    monkeypatch.setattr("services.analytics.sink_session._PROBE_AFTER_S", 0.0)
    consumer = FakeConsumer()
    consumer.answers = False
    async with _running(consumer, RecordingStore()) as task:
        with pytest.raises(BrokerLostError):
            await task
