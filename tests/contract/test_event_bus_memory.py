"""The memory event bus keeps the contract of its port, and records for tests."""

from collections.abc import AsyncIterator, Sequence

import pytest

from servicekit.adapters.memory.event_bus import MemoryEventBus
from servicekit.errors import BackendUnavailable
from servicekit.events.dead_letters import Record
from servicekit.events.topics import PRODUCER_REPORTED
from servicekit.ports.event_bus import Subscription
from servicekit.testing.conformance.event_bus import TOPIC, EventBusConformance, Recorder, feedback


class _Harness:
    def __init__(self) -> None:
        self.bus = MemoryEventBus()

    async def connect(self) -> MemoryEventBus:
        return self.bus

    async def append_raw(
        self, topic: str, *, key: bytes | None, value: bytes, headers: tuple[tuple[str, bytes], ...]
    ) -> None:
        await self.bus.append(topic, key=key, value=value, headers=headers)

    async def read_all(self, topic: str, *, count: int) -> Sequence[Record]:
        await self.bus.drain()
        return self.bus.records(topic)[:count]


@pytest.fixture
async def harness() -> AsyncIterator[_Harness]:
    """One bus, stopped at the end."""
    made = _Harness()
    yield made
    await made.bus.stop_consuming()


class TestMemoryEventBus(EventBusConformance):
    """All of the port's contract."""


async def test_published_events_are_recorded() -> None:
    """What was published stands in order, for a test to look at."""
    bus = MemoryEventBus()
    await bus.publish(feedback("e1"))
    await bus.publish(feedback("e2"))
    assert [event.id for event in bus.published] == ["e1", "e2"]


async def test_told_to_fail_it_records_nothing() -> None:
    """A publish that is told to fail raises as if the broker were away, and leaves no trace."""
    bus = MemoryEventBus()
    bus.fail_next = 1
    with pytest.raises(BackendUnavailable) as failure:
        await bus.publish(feedback("e1"))
    assert failure.value.reason == "EVENT_NOT_RECORDED"
    assert bus.published == []
    assert bus.records(TOPIC) == []


async def test_drain_waits_for_every_subscription() -> None:
    """After a drain, all that was published has been handled."""
    bus, done = MemoryEventBus(), Recorder()
    bus.subscribe(Subscription(TOPIC, "analytics", done))
    await bus.start_consuming()
    for number in range(50):
        await bus.publish(feedback(f"e{number}", key=f"k{number % 5}"))
    await bus.drain()
    assert len(done.ids) == 50
    await bus.stop_consuming()


async def test_report_marks_what_is_safe() -> None:
    """A report tells the sequences of every partition but those of its own topic."""
    bus = MemoryEventBus()
    await bus.report()
    assert bus.published == []
    await bus.publish(feedback("e1"))
    await bus.report()
    await bus.report(final=True)
    first, last = bus.published[1:]
    assert first.topic == PRODUCER_REPORTED
    assert [(mark.topic, mark.accepted) for mark in last.message.marks] == [(TOPIC, 1)]
    assert (first.message.final, last.message.final) == (False, True)
    assert first.id != last.id
