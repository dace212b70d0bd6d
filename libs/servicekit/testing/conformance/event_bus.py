"""What every event bus must do; inherited by the contract test of each adapter, which supplies a harness."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import pytest

from binnacle.events.v1.feedback_recorded_pb2 import FeedbackRecorded
from servicekit.domain.envelope import ReceivedEvent
from servicekit.errors import NotReady
from servicekit.events.codec import decode
from servicekit.events.dead_letters import Record, replay_headers
from servicekit.events.topics import FEEDBACK_RECORDED, dead_letter_topic, replay_topic
from servicekit.ports.event_bus import DeadLetterLimits, EventBus, OutgoingEvent, RejectedEvent, Subscription

TOPIC = FEEDBACK_RECORDED
_WAIT_S = 20.0


class EventBusHarness(Protocol):
    """One place where events live, and buses that are connected to it."""

    async def connect(self) -> EventBus:
        """A new bus on the same place, as another process would open it; closed with the harness."""
        ...

    async def append_raw(
        self, topic: str, *, key: bytes | None, value: bytes, headers: tuple[tuple[str, bytes], ...]
    ) -> None:
        """Put a record on a topic as a foreign producer would."""
        ...

    async def read_all(self, topic: str, *, count: int) -> Sequence[Record]:
        """The first `count` records of a topic, in the order of each partition."""
        ...


class Recorder:
    """A handler that keeps what it was given, and can be told to fail."""

    def __init__(self) -> None:
        self.events: list[ReceivedEvent] = []
        self.fail_times: dict[str, int] = defaultdict(int)
        self.reject: set[str] = set()
        self.hold: dict[str, asyncio.Event] = {}
        self.begun: list[str] = []
        self._changed = asyncio.Condition()

    async def __call__(self, event: ReceivedEvent) -> None:
        """Handle one event as told."""
        name = event.envelope.id
        self.begun.append(name)
        if name in self.hold:
            await self.hold[name].wait()
        if name in self.reject:
            raise RejectedEvent(f"{name} is told to be rejected", stage="apply")
        if self.fail_times[name]:
            self.fail_times[name] -= 1
            raise RuntimeError(f"{name} is told to fail")
        decode(event, FeedbackRecorded)
        async with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    @property
    def ids(self) -> list[str]:
        """Event ids in the order in which they were done."""
        return [event.envelope.id for event in self.events]

    async def wait_for(self, count: int) -> None:
        """Return when `count` events are done; TimeoutError if they are not in time."""
        async with asyncio.timeout(_WAIT_S), self._changed:
            await self._changed.wait_for(lambda: len(self.events) >= count)


def feedback(name: str, *, key: str = "request-1", tenant: str = "acme") -> OutgoingEvent:
    """An event whose id is `name`."""
    message = FeedbackRecorded(feedback_id=name, request_id=key, tenant_id=tenant, rating=5)
    return OutgoingEvent(topic=TOPIC, key=key, id=name, tenant=tenant, message=message)


class EventBusConformance:
    """Subclasses provide the fixture `harness`."""

    async def test_event_arrives_as_it_was_published(self, harness: EventBusHarness) -> None:
        """Payload, key, identity, tenant and producer reach the handler."""
        bus, done = await harness.connect(), Recorder()
        bus.subscribe(Subscription(TOPIC, "analytics", done))
        await bus.start_consuming()
        sent = feedback("e1", key="request-7", tenant="acme")
        await bus.publish(sent)
        await done.wait_for(1)
        (event,) = done.events
        assert decode(event, FeedbackRecorded) == sent.message
        assert (event.key, event.topic) == ("request-7", TOPIC)
        envelope = event.envelope
        assert (envelope.id, envelope.tenant, envelope.sequence) == ("e1", "acme", 1)
        assert envelope.type == "binnacle.events.v1.FeedbackRecorded"
        assert envelope.producer
        assert envelope.source

    async def test_a_tombstone_arrives_empty_and_without_a_number(self, harness: EventBusHarness) -> None:
        """It keeps key, type and tenant, and the next event has the next sequence."""
        bus, done = await harness.connect(), Recorder()
        bus.subscribe(Subscription(TOPIC, "analytics", done))
        await bus.start_consuming()
        await bus.publish(feedback("e1", key="k"))
        await bus.publish(replace(feedback("e2", key="k"), tombstone=True))
        await bus.publish(feedback("e3", key="k"))
        await done.wait_for(3)
        first, tombstone, last = done.events
        assert (tombstone.payload, tombstone.key, tombstone.envelope.type) == (b"", "k", first.envelope.type)
        assert (tombstone.envelope.producer, tombstone.envelope.sequence) == ("", 0)
        assert (first.envelope.sequence, last.envelope.sequence) == (1, 2)

    async def test_events_of_a_key_stay_in_order(self, harness: EventBusHarness) -> None:
        """Events of one key are handled one after the other, whatever else is handled meanwhile."""
        bus, done = await harness.connect(), Recorder()
        bus.subscribe(Subscription(TOPIC, "analytics", done, concurrency=4))
        names = [f"{key}-{number}" for number in range(10) for key in "abcd"]
        await asyncio.gather(*(self._publish_all(bus, names, key) for key in "abcd"))
        await bus.start_consuming()
        await done.wait_for(len(names))
        for key in "abcd":
            mine = [name for name in done.ids if name.startswith(key)]
            assert mine == [f"{key}-{number}" for number in range(10)]

    @staticmethod
    async def _publish_all(bus: EventBus, names: Sequence[str], key: str) -> None:
        for name in names:
            if name.startswith(key):
                await bus.publish(feedback(name, key=key))

    async def test_sequences_count_from_one_without_holes(self, harness: EventBusHarness) -> None:
        """Per partition, the sequences of one producer are 1, 2, 3 in the order of the log."""
        bus, total = await harness.connect(), 40
        await asyncio.gather(*(bus.publish(feedback(f"e{n}", key=f"k{n}")) for n in range(total)))
        sequences: dict[int, list[int]] = defaultdict(list)
        for record in await harness.read_all(TOPIC, count=total):
            sequences[record.partition].append(int(dict(record.headers)["ce_sequence"] or b""))
        assert sum(map(len, sequences.values())) == total
        for found in sequences.values():
            assert found == list(range(1, len(found) + 1))

    async def test_new_group_starts_at_the_beginning(self, harness: EventBusHarness) -> None:
        """A group that never committed gets what was published before it existed."""
        bus, done = await harness.connect(), Recorder()
        await bus.publish(feedback("before"))
        bus.subscribe(Subscription(TOPIC, "evaluator", done))
        await bus.start_consuming()
        await done.wait_for(1)
        assert done.ids == ["before"]

    async def test_each_group_gets_every_event(self, harness: EventBusHarness) -> None:
        """Groups do not take events from each other."""
        bus, first, second = await harness.connect(), Recorder(), Recorder()
        bus.subscribe(Subscription(TOPIC, "analytics", first))
        bus.subscribe(Subscription(TOPIC, "evaluator", second))
        await bus.start_consuming()
        await bus.publish(feedback("e1"))
        await first.wait_for(1)
        await second.wait_for(1)
        assert first.ids == second.ids == ["e1"]

    async def test_failed_event_is_retried_before_its_key_goes_on(self, harness: EventBusHarness) -> None:
        """An exception repeats the event; later events of its key wait, none is lost."""
        bus, done = await harness.connect(), Recorder()
        done.fail_times["e1"] = failures = 2
        bus.subscribe(Subscription(TOPIC, "analytics", done))
        await bus.start_consuming()
        for name in ("e1", "e2"):
            await bus.publish(feedback(name))
        await done.wait_for(2)
        assert done.ids == ["e1", "e2"]
        assert done.begun.count("e1") == failures + 1

    async def test_rejected_event_goes_to_the_dead_letters(self, harness: EventBusHarness) -> None:
        """A rejected event keeps its bytes and headers on the group's dead-letter topic, typed in headers."""
        bus, done = await harness.connect(), Recorder()
        done.reject.add("bad")
        bus.subscribe(Subscription(TOPIC, "analytics", done))
        await bus.start_consuming()
        bad = feedback("bad")
        await bus.publish(bad)
        await bus.publish(feedback("good"))
        await done.wait_for(1)
        (letter,) = await harness.read_all(dead_letter_topic(TOPIC, "analytics"), count=1)
        headers = dict(letter.headers)
        assert letter.value == bad.message.SerializeToString(deterministic=True)
        assert letter.key == b"request-1"
        assert headers["ce_id"] == b"bad"
        assert headers["ce_sequence"] == b"1"
        assert headers["dlq-stage"] == b"apply"
        assert headers["dlq-topic"] == TOPIC.encode()
        assert headers["dlq-group"] == b"analytics"
        assert headers["dlq-error"] == b"bad is told to be rejected"
        assert headers["dlq-error-class"] == b"RejectedEvent"
        assert int(headers["dlq-offset"] or b"") >= 0
        assert done.ids == ["good"]

    async def test_foreign_record_goes_to_the_dead_letters(self, harness: EventBusHarness) -> None:
        """A record without our headers, or with broken ones, is buried and the next one is handled."""
        bus, done = await harness.connect(), Recorder()
        bus.subscribe(Subscription(TOPIC, "analytics", done))
        await bus.start_consuming()
        await harness.append_raw(TOPIC, key=None, value=b"123", headers=())
        await harness.append_raw(TOPIC, key=b"\xff", value=b"\xff\xfe", headers=(("ce_id", b"\xff"),))
        await bus.publish(feedback("good"))
        await done.wait_for(1)
        letters = await harness.read_all(dead_letter_topic(TOPIC, "analytics"), count=2)
        assert {letter.value for letter in letters} == {b"123", b"\xff\xfe"}
        assert {dict(letter.headers)["dlq-stage"] for letter in letters} == {b"envelope"}

    async def test_undecodable_payload_goes_to_the_dead_letters(self, harness: EventBusHarness) -> None:
        """Bytes that are no message of the topic are buried at stage decode."""
        bus, done = await harness.connect(), Recorder()
        bus.subscribe(Subscription(TOPIC, "analytics", done))
        await bus.start_consuming()
        headers = (
            ("ce_specversion", b"1.0"),
            ("ce_id", b"x"),
            ("ce_source", b"upstream"),
            ("ce_type", b"binnacle.events.v1.FeedbackRecorded"),
            ("ce_tenant", b"acme"),
        )
        await harness.append_raw(TOPIC, key=b"k", value=b"\xff\xff\xff", headers=headers)
        (letter,) = await harness.read_all(dead_letter_topic(TOPIC, "analytics"), count=1)
        assert dict(letter.headers)["dlq-stage"] == b"decode"

    async def test_a_replay_feeds_only_its_group(self, harness: EventBusHarness) -> None:
        """What is put on a group's replay topic is handled by that group, as the event that it was, and not again."""
        bus, done, other = await harness.connect(), Recorder(), Recorder()
        done.reject.add("bad")
        bus.subscribe(Subscription(TOPIC, "analytics", done))
        bus.subscribe(Subscription(TOPIC, "evaluator", other))
        await bus.start_consuming()
        await bus.publish(feedback("bad"))
        (letter,) = await harness.read_all(dead_letter_topic(TOPIC, "analytics"), count=1)
        await other.wait_for(1)
        done.reject.clear()
        headers = tuple((name, value or b"") for name, value in replay_headers(letter.headers))
        await harness.append_raw(
            replay_topic(TOPIC, "analytics"), key=letter.key, value=letter.value or b"", headers=headers
        )
        await done.wait_for(1)
        await bus.publish(feedback("good"))
        await other.wait_for(2)
        (replayed,) = done.events[:1]
        assert (replayed.topic, replayed.envelope, replayed.payload) == (
            TOPIC,
            other.events[0].envelope,
            other.events[0].payload,
        )
        assert (replayed.partition, replayed.offset) == (other.events[0].partition, other.events[0].offset)
        assert other.ids == ["bad", "good"]

    async def test_too_many_dead_letters_stop_the_subscription(self, harness: EventBusHarness) -> None:
        """Past its limits nothing more is buried or handled, the bus says why, and other subscriptions go on."""
        bus, done, other = await harness.connect(), Recorder(), Recorder()
        names = [f"e{number}" for number in range(8)]
        done.reject.update(names[1:])
        limits = DeadLetterLimits(max_in_a_row=3)
        bus.subscribe(Subscription(TOPIC, "analytics", done, dead_letter_limits=limits))
        bus.subscribe(Subscription(TOPIC, "evaluator", other))
        await bus.start_consuming()
        await bus.check_consuming()
        for name in names:
            await bus.publish(feedback(name))
        await other.wait_for(len(names))
        letters = await harness.read_all(dead_letter_topic(TOPIC, "analytics"), count=3)
        assert [dict(letter.headers)["ce_id"] for letter in letters] == [b"e1", b"e2", b"e3"]
        async with asyncio.timeout(_WAIT_S):
            while done.begun[-1] != "e4":  # noqa: ASYNC110  # a rejection tells nobody
                await asyncio.sleep(0.01)
        with pytest.raises(NotReady, match="dead letters stopped"):
            await bus.check_consuming()
        assert done.ids == ["e0"]
        assert done.begun == names[:5]

    async def test_without_dead_letters_a_rejected_event_is_dropped(self, harness: EventBusHarness) -> None:
        """A subscription that keeps no dead letters goes on past what it rejects."""
        bus, done = await harness.connect(), Recorder()
        done.reject.add("bad")
        bus.subscribe(Subscription(TOPIC, "analytics", done, dead_letter=False))
        await bus.start_consuming()
        await bus.publish(feedback("bad"))
        await bus.publish(feedback("good"))
        await done.wait_for(1)
        assert done.ids == ["good"]

    async def test_slow_key_does_not_hold_up_others(self, harness: EventBusHarness) -> None:
        """While one key's event is in hand, another key's is handled."""
        bus, done = await harness.connect(), Recorder()
        done.hold["slow"] = asyncio.Event()
        await bus.publish(feedback("slow", key="a"))
        await bus.publish(feedback("fast", key="b"))
        bus.subscribe(Subscription(TOPIC, "analytics", done, concurrency=2))
        await bus.start_consuming()
        await done.wait_for(1)
        assert done.ids == ["fast"]
        done.hold["slow"].set()
        await done.wait_for(2)

    async def test_stop_finishes_what_is_in_hand(self, harness: EventBusHarness) -> None:
        """Stopping lets a running handler end and begins no other."""
        bus, done = await harness.connect(), Recorder()
        done.hold["e1"] = asyncio.Event()
        bus.subscribe(Subscription(TOPIC, "analytics", done))
        await bus.start_consuming()
        for name in ("e1", "e2"):
            await bus.publish(feedback(name))
        async with asyncio.timeout(_WAIT_S):
            while not done.begun:  # noqa: ASYNC110  # the handler has no event for its beginning
                await asyncio.sleep(0.01)
        stopping = asyncio.ensure_future(bus.stop_consuming())
        await asyncio.sleep(0)
        done.hold["e1"].set()
        await stopping
        assert done.ids == ["e1"]
        assert "e2" not in done.begun

    async def test_ping_answers(self, harness: EventBusHarness) -> None:
        """An open bus answers a ping."""
        await (await harness.connect()).ping()
