"""Lanes: what counts as handled, and what a commit may therefore claim."""

import asyncio
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from servicekit.domain.envelope import Envelope, ReceivedEvent
from servicekit.events.codec import encode_headers
from servicekit.events.dead_letters import DeadLetter, Record, bury, read_burial, replay_headers
from servicekit.events.lanes import Backoff, Lanes
from servicekit.ports.event_bus import DeadLetterLimits, Handler, RejectedEvent, Subscription
from servicekit.testing.clocks import FakeClock

_TIME = datetime(2026, 1, 1, tzinfo=UTC)


def _record(offset: int, *, key: str = "k", partition: int = 0) -> Record:
    envelope = Envelope(
        id=f"{partition}/{offset}", source="s", type="t", tenant="acme", producer="p", sequence=offset + 1
    )
    headers = encode_headers(envelope)
    return Record("topic", partition, offset, key.encode() or None, b"", headers, _TIME)


def _lanes(handle: Handler, *, letters: list[DeadLetter] | None = None, **options: object) -> Lanes:
    async def keep(letter: DeadLetter) -> None:
        assert letters is not None
        letters.append(letter)

    subscription = Subscription("topic", "group", handle, concurrency=4)
    return Lanes(subscription, send_dead_letter=keep, backoff=Backoff(0.001, 0.002), **options)


@given(
    keys=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), max_size=30),
    reject=st.sets(st.integers(0, 29)),
    fail=st.sets(st.integers(0, 29)),
)
@settings(max_examples=50, deadline=None)
def test_every_batch_is_done_in_order_of_its_keys(
    keys: list[tuple[str, int]], reject: set[int], fail: set[int]
) -> None:
    """Whatever fails once or is rejected, each key is handled in order and each partition to its end."""
    next_offset: dict[int, int] = defaultdict(int)
    records, letters, done, failed = [], [], defaultdict(list), set()
    for key, partition in keys:
        records.append(_record(next_offset[partition], key=key, partition=partition))
        next_offset[partition] += 1
    numbers = {f"{record.partition}/{record.offset}": n for n, record in enumerate(records)}

    async def handle(event: ReceivedEvent) -> None:
        number = numbers[event.envelope.id]
        await asyncio.sleep(0)
        if number in fail and number not in failed:
            failed.add(number)
            raise RuntimeError("once")
        if number in reject:
            raise RejectedEvent("no", stage="apply")
        done[event.key, event.partition].append(event.offset)

    with capture_logs():
        positions = asyncio.run(_lanes(handle, letters=letters).process(records))
    assert positions == {("topic", partition): offset for partition, offset in next_offset.items()}
    assert all(offsets == sorted(offsets) for offsets in done.values())
    assert len(letters) + sum(map(len, done.values())) == len(records)


async def test_pause_claims_only_what_is_handled_without_exception() -> None:
    """A record left in the middle keeps the position at itself, though a later one was handled."""
    lanes: Lanes

    async def handle(event: ReceivedEvent) -> None:
        if event.offset == 1:
            lanes.pause()
            raise RuntimeError("gives up at the pause")

    lanes = _lanes(handle)
    records = [_record(0, key="a"), _record(1, key="b"), _record(2, key="a")]
    assert await lanes.process(records) == {("topic", 0): 1}


async def test_failed_dead_letter_is_retried() -> None:
    """A dead letter that cannot be put down is tried again; the record is not passed over."""
    attempts = 0

    async def refuse_once(_letter: DeadLetter) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise RuntimeError("the broker is away")

    async def handle(_event: ReceivedEvent) -> None:
        raise RejectedEvent("no", stage="apply")

    subscription = Subscription("topic", "group", handle)
    lanes = Lanes(subscription, send_dead_letter=refuse_once, backoff=Backoff(0.001, 0.002))
    assert await lanes.process([_record(0)]) == {("topic", 0): 1}
    assert attempts == 2


async def test_record_of_a_lost_partition_is_left() -> None:
    """A partition that went to another consumer is not worked on."""
    handled = []

    async def handle(event: ReceivedEvent) -> None:
        handled.append(event.partition)

    lanes = _lanes(handle, owns=lambda partition: partition[1] == 1)
    assert await lanes.process([_record(5, partition=0), _record(7, partition=1)]) == {
        ("topic", 0): 5,
        ("topic", 1): 8,
    }
    assert handled == [1]


@pytest.mark.parametrize(("attempt", "pause_s"), [(1, 0.1), (2, 0.2), (4, 0.8), (20, 30.0), (10**6, 30.0)])
def test_backoff_doubles_up_to_its_bound(attempt: int, pause_s: float) -> None:
    """Pauses double and stay bounded, however long it goes on."""
    assert Backoff().pause_s(attempt) == pytest.approx(pause_s)


async def _reject_odd(event: ReceivedEvent) -> None:
    if event.offset % 2:
        raise RejectedEvent(f"{event.offset} is odd", stage="apply")


async def test_too_many_dead_letters_stop_the_consumer() -> None:
    """Past the cap nothing is buried, handled or claimed, neither now nor in the next batch."""
    letters: list[DeadLetter] = []
    limits = DeadLetterLimits(max_ratio=0.2, min_records=4)
    subscription = Subscription("topic", "group", _reject_odd, concurrency=1, dead_letter_limits=limits)

    async def keep(letter: DeadLetter) -> None:
        letters.append(letter)

    lanes = Lanes(subscription, send_dead_letter=keep)
    with capture_logs() as logs:
        assert await lanes.process([_record(offset) for offset in range(10)]) == {("topic", 0): 3}
        assert await lanes.process([_record(10)]) == {("topic", 0): 10}
    assert lanes.stopped
    assert [letter.record.offset for letter in letters] == [1]
    (told,) = [line for line in logs if line["event"] == "event.consumer_stopped"]
    assert told["why"].startswith("2 of the last 4 records were refused, 1 of them in a row; the last one: 3 is odd")


async def test_a_replay_is_handled_where_it_first_was() -> None:
    """The handler sees the event at its place; what is committed is the place on the replay topic."""
    seen: list[ReceivedEvent] = []

    async def handle(event: ReceivedEvent) -> None:
        seen.append(event)

    letter = bury(_record(7), RejectedEvent("no", stage="apply"), group="group", now=_TIME)
    replayed = Record("topic.group.replay", 0, 3, letter.key, letter.value, replay_headers(letter.headers), _TIME)
    assert await _lanes(handle).process([replayed]) == {("topic.group.replay", 0): 4}
    (event,) = seen
    assert (event.topic, event.partition, event.offset) == ("topic", 0, 7)
    assert event.headers == _record(7).headers


async def test_a_replay_that_fails_again_is_buried_again_and_stops_nothing() -> None:
    """It carries its first failure and the number of its replays; the cap counts only what is new."""
    letters: list[DeadLetter] = []

    async def keep(letter: DeadLetter) -> None:
        letters.append(letter)

    first = bury(_record(7), RejectedEvent("no", stage="apply"), group="group", now=_TIME - timedelta(days=1))
    limits = DeadLetterLimits(max_in_a_row=0)
    lanes = Lanes(
        Subscription("topic", "group", _reject_odd, dead_letter_limits=limits),
        send_dead_letter=keep,
        clock=FakeClock(_TIME),
    )
    replayed = Record("topic.group.replay", 0, 3, first.key, first.value, replay_headers(first.headers), _TIME)
    with capture_logs():
        assert await lanes.process([replayed]) == {("topic.group.replay", 0): 4}
    assert not lanes.stopped
    burial, headers = read_burial(letters[0].headers)
    assert letters[0].topic == "topic.group.dlq"
    assert (burial.origin.offset, burial.origin.replays, burial.error) == (7, 1, "7 is odd")
    assert burial.origin.first_failure_time == _TIME - timedelta(days=1)
    assert headers == _record(7).headers


async def test_what_is_no_dead_letter_on_a_replay_topic_is_passed_over() -> None:
    """A replay topic is fed by replays alone; anything else there is told and left, buried nowhere."""

    async def handle(_event: ReceivedEvent) -> None:
        raise AssertionError("no event")

    record = Record("topic.group.replay", 0, 0, b"k", b"", _record(7).headers, _TIME)
    with capture_logs() as logs:
        assert await _lanes(handle).process([record]) == {("topic.group.replay", 0): 1}
    assert [line["stage"] for line in logs] == ["replay"]
