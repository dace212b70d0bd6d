"""The sink stores before it commits, commits only what is its own, and pauses rather than grow."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from servicekit.domain.envelope import Envelope
from servicekit.errors import BackendUnavailable, InvalidRequest, NotReady
from servicekit.events.codec import encode_headers
from servicekit.events.dead_letter_cap import Trip
from servicekit.events.dead_letters import DeadLetter, bury, read_burial, replay_headers
from servicekit.events.topics import DRIFT_ALERTED, FEEDBACK_RECORDED, TOPICS, replay_topic
from servicekit.ports.clock import SystemClock
from servicekit.ports.event_bus import DeadLetterLimits, RejectedEvent
from services.analytics.batching import Limits
from services.analytics.record_bytes import original
from services.analytics.sink_health import SinkHealth
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
        return {} if self.waiting.empty() or self.held >= self.owned else self.waiting.get_nowait()

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


@asynccontextmanager
async def _running(
    consumer: FakeConsumer,
    store: RecordingStore,
    *,
    limits: Limits = _AT_ONCE,
    max_buffered_bytes: int = 1 << 20,
    letters: list[DeadLetter] | None = None,
    health: SinkHealth | None = None,
) -> AsyncIterator[asyncio.Task[None]]:
    async def keep(letter: DeadLetter) -> None:
        assert letters is not None, "nothing here is a dead letter"
        letters.append(letter)

    session = SinkSession(
        consumer,
        tables=_TABLES,
        writer=BatchWriter(
            store, group="analytics", send_dead_letter=keep, limits=DeadLetterLimits(max_ratio=1, max_in_a_row=3)
        ),
        clock=SystemClock(),
        settings=SinkSettings(limits=limits, max_buffered_bytes=max_buffered_bytes),
        health=health,
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


async def test_a_batch_that_is_stored_first_is_committed_behind_the_one_before_it() -> None:
    """Two batches of a topic are stored at once; a commit never passes over what is not stored yet."""
    first_is_away = True

    def away(body: bytes) -> None:
        if first_is_away and b"e0" in body:
            raise BackendUnavailable("away")

    consumer, store = FakeConsumer(), RecordingStore(refuse=away)
    async with _running(consumer, store):
        consumer.give(0)
        await _until(consumer.waiting.empty)
        consumer.give(1)
        await _until(lambda: store.inserts)
        for _ in range(10):
            await asyncio.sleep(0)
        assert consumer.commits == []
        first_is_away = False
        await _until(lambda: len(consumer.commits) == 2)
    assert consumer.commits == [{_PARTITION: 1}, {_PARTITION: 2}]


async def test_a_batch_behind_one_that_was_given_up_is_not_committed() -> None:
    """At a stop that cannot wait for the store, nothing is committed past what is not stored."""

    def away(body: bytes) -> None:
        if b"e0" in body:
            raise BackendUnavailable("away")

    consumer, store = FakeConsumer(), RecordingStore(refuse=away)
    async with _running(consumer, store):
        consumer.give(0)
        await _until(consumer.waiting.empty)
        consumer.give(1)
        await _until(lambda: store.inserts)
        assert consumer.listener is not None
        consumer.listener._abandon()
        await _until(lambda: not consumer.listener._all_storing())
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


def _refuse_feedback(body: bytes) -> None:
    if FEEDBACK_RECORDED.encode() in body:
        raise InvalidRequest("no such column")


async def test_a_topic_that_is_all_poison_is_stopped_and_the_others_go_on() -> None:
    """Nothing of it is committed, its partitions are paused, readiness says why; another topic is stored."""
    consumer, store, letters = FakeConsumer(), RecordingStore(refuse=_refuse_feedback), list[DeadLetter]()
    replays, other = TopicPartition(replay_topic(FEEDBACK_RECORDED, "analytics"), 0), TopicPartition(DRIFT_ALERTED, 0)
    consumer.owned = {_PARTITION, replays, other}
    health = SinkHealth("analytics")
    async with _running(consumer, store, letters=letters, health=health):
        consumer.give(*range(10))
        await _until(lambda: consumer.held)
        consumer.give(*range(10, 20))  # what was fetched before the pause
        consumer.give(0, topic=DRIFT_ALERTED)
        await _until(lambda: consumer.commits)
        assert consumer.held == {_PARTITION, replays}
        with pytest.raises(NotReady, match=f"stopped {FEEDBACK_RECORDED}: 4 of the last 4 records .* no such column"):
            await health.ping()
    assert [letter.record.offset for letter in letters] == [0, 1, 2]
    assert consumer.commits == [{other: 1}]


async def test_what_was_stopped_stays_so_for_the_next_session() -> None:
    """Other trouble ends a session; the next one, too, leaves the topic alone until the process is started anew."""
    consumer, store, health = FakeConsumer(), RecordingStore(), SinkHealth("analytics")
    health.stop(FEEDBACK_RECORDED, Trip(refused=1, seen=1, in_a_row=1, error="bad"))
    async with _running(consumer, store, health=health):
        await _until(lambda: consumer.held)
        consumer.give(0)
        consumer.give(0, topic=DRIFT_ALERTED)
        await _until(lambda: consumer.commits)
    assert consumer.commits == [{TopicPartition(DRIFT_ALERTED, 0): 1}]
    assert len(store.inserts) == 1


async def test_a_stopped_topic_stays_paused_when_memory_is_free_again() -> None:
    """Throttling resumes what it paused itself, no more; a rebalance that forgets the pause changes nothing."""
    gone = True

    def away(_body: bytes) -> None:
        if gone:
            raise BackendUnavailable("away")

    consumer, health = FakeConsumer(), SinkHealth("analytics")
    health.stop(FEEDBACK_RECORDED, Trip(refused=1, seen=1, in_a_row=1, error="bad"))
    async with _running(consumer, RecordingStore(refuse=away), max_buffered_bytes=1000, health=health):
        consumer.give(0, topic=DRIFT_ALERTED, size=2000)
        await _until(lambda: consumer.held == consumer.owned)
        gone = False
        await _until(lambda: consumer.held == {_PARTITION})
        consumer.held = set()
        await _until(lambda: consumer.held == {_PARTITION})


async def test_readiness_says_that_the_store_is_away_and_fetching_paused() -> None:
    """What waits and why is told as long as it lasts."""
    gone = True

    def away(_body: bytes) -> None:
        if gone:
            raise BackendUnavailable("away")

    consumer, health = FakeConsumer(), SinkHealth("analytics")
    with pytest.raises(NotReady, match="not connected to Kafka: not started yet"):
        await health.ping()
    async with _running(consumer, RecordingStore(refuse=away), max_buffered_bytes=1000, health=health):
        consumer.give(0, size=2000)
        await _until(lambda: health.failing)
        with pytest.raises(
            NotReady, match=f"fetching is paused, batches wait for the store: {FEEDBACK_RECORDED}: away"
        ):
            await health.ping()
        gone = False
        await _until(lambda: not consumer.held)
        await health.ping()


def _replay(offset: int, *, of: int) -> ConsumerRecord[bytes, bytes]:
    record = replace(_record(of, topic=FEEDBACK_RECORDED, size=1), timestamp=1_700_000_000_123)
    letter = bury(
        original(record), RejectedEvent("no", stage="apply"), group="analytics", now=datetime(2026, 1, 1, tzinfo=UTC)
    )
    return replace(
        record,
        topic=replay_topic(FEEDBACK_RECORDED, "analytics"),
        offset=offset,
        timestamp=1_800_000_000_000,
        headers=replay_headers(letter.headers),
    )


async def test_a_replayed_record_is_stored_where_it_first_was() -> None:
    """Its row is the one that the first attempt would have made, and the replay topic's offset is committed."""
    consumer, store = FakeConsumer(), RecordingStore()
    replays = TopicPartition(replay_topic(FEEDBACK_RECORDED, "analytics"), 0)
    consumer.owned = {_PARTITION, replays}
    first = replace(_record(7, topic=FEEDBACK_RECORDED, size=1), timestamp=1_700_000_000_123)
    async with _running(consumer, store):
        consumer.waiting.put_nowait({_PARTITION: [first]})
        await _until(lambda: len(consumer.commits) == 1)
        consumer.waiting.put_nowait({replays: [_replay(0, of=7), replace(first, topic=replays.topic, offset=1)]})
        await _until(lambda: len(consumer.commits) == 2)
    assert [body for _sql, body in store.inserts] == [store.inserts[0][1]] * 2
    assert consumer.commits[1] == {replays: 2}


async def test_a_replay_that_is_refused_again_is_a_dead_letter_again() -> None:
    """With its place, its first failure and the number of its replays; it stops nothing."""
    consumer, letters = FakeConsumer(), list[DeadLetter]()
    replays = TopicPartition(replay_topic(FEEDBACK_RECORDED, "analytics"), 0)
    consumer.owned = {_PARTITION, replays}
    async with _running(consumer, RecordingStore(refuse=_refuse_feedback), letters=letters):
        consumer.waiting.put_nowait({replays: [_replay(number, of=number) for number in range(6)]})
        await _until(lambda: consumer.commits)
    burials = [read_burial(letter.headers)[0] for letter in letters]
    assert [burial.origin.offset for burial in burials] == list(range(6))
    assert {burial.origin.replays for burial in burials} == {1}
    assert {burial.origin.first_failure_time for burial in burials} == {datetime(2026, 1, 1, tzinfo=UTC)}
    assert consumer.commits == [{replays: 6}]
