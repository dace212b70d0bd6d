"""A batch is stored whole; the row that spoils it is found and becomes a dead letter."""

from datetime import UTC, datetime

import pytest
from aiokafka import ConsumerRecord, TopicPartition

from servicekit.errors import BackendUnavailable, InvalidRequest
from servicekit.events.dead_letter_cap import DeadLetterCapReached
from servicekit.events.dead_letters import DeadLetter, Origin, read_burial
from servicekit.events.topics import FEEDBACK_RECORDED
from servicekit.ports.event_bus import DeadLetterLimits, RejectedEvent
from services.analytics.batching import Batch, Gap, Limits
from services.analytics.tables import TopicTable
from services.analytics.writing import BatchWriter
from tests.unit.analytics.analytics_fakes import RecordingStore

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_TABLE = TopicTable(FEEDBACK_RECORDED, "feedback_raw", "INSERT INTO feedback_raw FORMAT Protobuf", {})


def _record(offset: int) -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord(FEEDBACK_RECORDED, 0, offset, 0, 0, b"k", b"v", None, 1, 1, (("ce_id", b"x"),))


def _batch(*rows: bytes) -> Batch:
    batch = Batch(topic=FEEDBACK_RECORDED, epoch=1, started_s=0.0)
    for offset, row in enumerate(rows):
        batch.add(_record(offset), (row,) if row else ())
    batch.reach(TopicPartition(FEEDBACK_RECORDED, 0), len(rows))
    return batch


def _refuse_x(body: bytes) -> None:
    if b"x" in body:
        raise InvalidRequest("a row with x")


def _refuse_all(_body: bytes) -> None:
    raise InvalidRequest("nothing fits")


class _Letters(list[DeadLetter]):
    async def send(self, letter: DeadLetter) -> None:
        self.append(letter)


async def test_a_good_batch_is_one_insert() -> None:
    """Rows are joined and written at once."""
    store, letters = RecordingStore(), _Letters()
    await BatchWriter(store, group="analytics", send_dead_letter=letters.send).write(_batch(b"a", b"b"), _TABLE)
    assert store.inserts == [(_TABLE.insert_sql, b"ab")]
    assert letters == []


async def test_poison_is_bisected_out() -> None:
    """Every good row is stored once, in order; every bad one is a dead letter with its original bytes."""
    store, letters = RecordingStore(refuse=_refuse_x), _Letters()
    writer = BatchWriter(store, group="analytics", send_dead_letter=letters.send)
    await writer.write(_batch(b"a", b"x", b"b", b"c", b"x", b"d", b"e"), _TABLE)
    assert b"".join(body for _sql, body in store.inserts) == b"abcde"
    assert [letter.record.offset for letter in letters] == [1, 4]
    assert letters[0].topic == f"{FEEDBACK_RECORDED}.analytics.dlq"
    assert letters[0].value == b"v"


async def test_where_nothing_fits_no_topic_is_drained_into_dead_letters() -> None:
    """A table that refuses everything is a fault of the table: after a few rows the sink stops and says why."""
    letters = _Letters()
    writer = BatchWriter(
        RecordingStore(refuse=_refuse_all),
        group="analytics",
        send_dead_letter=letters.send,
        limits=DeadLetterLimits(max_in_a_row=3),
    )
    with pytest.raises(DeadLetterCapReached, match="4 of them in a row; the last one: nothing fits"):
        await writer.write(_batch(*[b"r"] * 100), _TABLE)
    assert len(letters) == 3


async def test_an_absent_store_leaves_everything_to_the_next_attempt() -> None:
    """An outage makes no dead letters."""

    def away(_body: bytes) -> None:
        raise BackendUnavailable("away")

    letters = _Letters()
    with pytest.raises(BackendUnavailable):
        await BatchWriter(RecordingStore(refuse=away), group="g", send_dead_letter=letters.send).write(
            _batch(b"a"), _TABLE
        )
    assert letters == []


async def test_rejected_records_and_gaps_are_written_too() -> None:
    """What could not be a row is a dead letter, and offsets that were lost are told."""
    store, letters = RecordingStore(), _Letters()
    batch = _batch()
    batch.reject(_record(5), RejectedEvent("no id", stage="envelope"))
    batch.gaps.append(Gap(FEEDBACK_RECORDED, 0, 3, 4))
    await BatchWriter(store, group="analytics", send_dead_letter=letters.send).write(batch, _TABLE)
    assert [letter.record.offset for letter in letters] == [5]
    assert len(store.inserts) == 1
    assert "stream_gaps" in store.inserts[0][0]
    assert b'"first_offset": 3' in store.inserts[0][1]


async def test_another_attempt_sends_no_dead_letter_twice() -> None:
    """While the store is away a batch is tried again and again; its dead letters were sent the first time."""
    away = True

    def refuse(body: bytes) -> None:
        if b"x" in body:
            raise InvalidRequest("a row with x")
        if away:
            raise BackendUnavailable("away")

    letters = _Letters()
    batch = _batch(b"x", b"a")
    batch.reject(_record(5), RejectedEvent("no id", stage="envelope"))
    writer = BatchWriter(RecordingStore(refuse=refuse), group="g", send_dead_letter=letters.send)
    for _ in range(3):
        with pytest.raises(BackendUnavailable):
            await writer.write(batch, _TABLE)
    away = False
    await writer.write(batch, _TABLE)
    assert [letter.record.offset for letter in letters] == [0, 5]


def test_a_tombstone_is_no_row() -> None:
    """It only moves the offset on."""
    batch = _batch(b"a", b"")
    assert batch.next_offsets == {TopicPartition(FEEDBACK_RECORDED, 0): 2}
    assert batch.rows == [(b"a",)]


@pytest.mark.parametrize("poison", [0, 1, 41_234, 99_998, 99_999])
async def test_one_poison_in_many_costs_few_inserts(poison: int) -> None:
    """Halves are tried, not rows: about two inserts for each doubling of the batch, and every row is stored once."""
    tries: list[int] = []

    def refuse(body: bytes) -> None:
        tries.append(len(body))
        _refuse_x(body)

    store, letters = RecordingStore(refuse=refuse), _Letters()
    batch = _batch(*(b"x" if row == poison else b"a" for row in range(100_000)))
    await BatchWriter(store, group="analytics", send_dead_letter=letters.send).write(batch, _TABLE)
    assert [letter.record.offset for letter in letters] == [poison]
    assert sum(len(body) for _sql, body in store.inserts) == 99_999
    assert len(tries) <= 2 * 17 + 1
    assert sum(tries) <= 3 * 100_000


async def test_what_was_settled_before_an_outage_is_not_tried_again() -> None:
    """The store goes away amid a bisection: the next attempt begins where it stopped."""
    answers = iter([InvalidRequest("whole"), None, BackendUnavailable("away")])

    def refuse(body: bytes) -> None:
        if (error := next(answers, None)) is not None:
            raise error

    store, letters, batch = RecordingStore(refuse=refuse), _Letters(), _batch(b"a", b"b", b"c", b"d")
    writer = BatchWriter(store, group="analytics", send_dead_letter=letters.send)
    with pytest.raises(BackendUnavailable):
        await writer.write(batch, _TABLE)
    await writer.write(batch, _TABLE)
    assert [body for _sql, body in store.inserts] == [b"ab", b"cd"]
    assert letters == []


async def test_the_cap_sees_records_in_the_order_of_the_topic() -> None:
    """Many that our own encoder rejects, spread over a large batch, are no streak; and both kinds count together."""
    store, letters = RecordingStore(refuse=_refuse_x), _Letters()
    writer = BatchWriter(
        store, group="analytics", send_dead_letter=letters.send, limits=DeadLetterLimits(max_in_a_row=2)
    )
    batch = Batch(topic=FEEDBACK_RECORDED, epoch=1, started_s=0.0)
    for offset in range(0, 1000, 40):
        batch.reject(_record(offset), RejectedEvent("no id", stage="envelope"))
        batch.add(_record(offset + 1), (b"x",))
        for good in range(2, 40):
            batch.add(_record(offset + good), (b"a",))
    await writer.write(batch, _TABLE)
    assert [letter.record.offset for letter in letters] == [n for n in range(1000) if n % 40 < 2]
    worse = _batch(b"a", b"x", b"x", b"a")
    worse.reject(_record(4), RejectedEvent("no id", stage="envelope"))
    worse.add(_record(5), (b"x",))
    worse.add(_record(6), (b"x",))
    with pytest.raises(DeadLetterCapReached, match="3 of them in a row"):
        await writer.write(worse, _TABLE)


async def test_a_replay_that_is_refused_again_stops_nothing() -> None:
    """It goes back to the dead letters with one replay more, and the cap counts only what is new."""
    letters = _Letters()
    writer = BatchWriter(
        RecordingStore(refuse=_refuse_x),
        group="analytics",
        send_dead_letter=letters.send,
        limits=DeadLetterLimits(max_in_a_row=0),
    )
    batch = _batch(b"x")
    origin = Origin(FEEDBACK_RECORDED, 0, 0, _NOW, _NOW, 2)
    batch.replayed[0, 0] = origin
    await writer.write(batch, _TABLE)
    assert read_burial(letters[0].headers)[0].origin == origin


@pytest.mark.parametrize(
    ("limits", "due"),
    [
        (Limits(max_rows=2), True),
        (Limits(max_bytes=2), True),
        (Limits(max_age_s=0.5), True),
        (Limits(), False),
    ],
)
def test_a_batch_is_due_by_rows_bytes_or_age(limits: Limits, due: bool) -> None:
    """Whichever limit comes first."""
    assert _batch(b"a", b"b").is_due(limits, now_s=0.6) is due
