"""Tests of publishing behind the calls: nothing is lost, the queue is bounded, the same event is one event."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from binnacle.events.v1.guardrail_decided_pb2 import GuardrailDecided
from servicekit.errors import BackendUnavailable
from servicekit.ports.event_bus import OutgoingEvent
from services.guardrail import publishing
from services.guardrail.publishing import DecisionPublisher


class HeldBus:
    """Acknowledges while open; otherwise the publish waits, or fails while `away`."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.failures: list[Exception] = []
        self.published: list[str] = []
        self.changed = asyncio.Condition()

    async def publish(self, event: OutgoingEvent) -> None:
        """Acknowledge when open."""
        if self.failures:
            raise self.failures.pop(0)
        await self.open.wait()
        async with self.changed:
            self.published.append(event.id)
            self.changed.notify_all()

    async def has(self, number: int) -> None:
        """Wait until so many were acknowledged."""
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(lambda: len(self.published) >= number)


def event(event_id: str) -> OutgoingEvent:
    """A decision."""
    return OutgoingEvent(
        topic="binnacle.guardrail.decided.v1", key="r", id=event_id, tenant="acme", message=GuardrailDecided()
    )


@asynccontextmanager
async def running(publisher: DecisionPublisher) -> AsyncIterator[asyncio.Task[None]]:
    """The background task, cancelled at the end."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(publisher.run())
        yield task
        task.cancel()


async def test_submit_returns_before_the_bus_has_acknowledged() -> None:
    """A call is not held up by the bus; the decision follows."""
    bus = HeldBus()
    bus.open.clear()
    publisher = DecisionPublisher(bus, capacity=10)
    async with running(publisher):
        await publisher.submit(event("a"), wait_s=0.0)
        assert bus.published == []
        bus.open.set()
        await bus.has(1)
    assert bus.published == ["a"]


async def test_a_full_queue_makes_the_call_wait_then_fail() -> None:
    """With no place left within the caller's time the check fails UNAVAILABLE, and nothing is taken in."""
    bus = HeldBus()
    bus.open.clear()
    publisher = DecisionPublisher(bus, capacity=1)
    await publisher.submit(event("a"), wait_s=0.0)
    with pytest.raises(BackendUnavailable) as caught:
        await publisher.submit(event("b"), wait_s=0.01)
    assert caught.value.reason == "EVENT_NOT_RECORDED"
    assert publisher.pending == 1


async def test_a_place_that_becomes_free_is_taken() -> None:
    """A waiting call goes on as soon as the bus has acknowledged another's decision."""
    bus = HeldBus()
    bus.open.clear()
    publisher = DecisionPublisher(bus, capacity=1)
    async with running(publisher), asyncio.TaskGroup() as group:
        await publisher.submit(event("a"), wait_s=0.0)
        waiting = group.create_task(publisher.submit(event("b"), wait_s=5.0))
        bus.open.set()
        await waiting
        await bus.has(2)
    assert bus.published == ["a", "b"]


async def test_the_same_event_is_held_once() -> None:
    """A repeated check, its first decision still on the way, takes no second place."""
    publisher = DecisionPublisher(HeldBus(), capacity=1)
    await publisher.submit(event("a"), wait_s=0.0)
    await publisher.submit(event("a"), wait_s=0.0)
    assert publisher.pending == 1


async def test_an_unavailable_bus_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures of the bus are waited out, with growing pauses."""
    monkeypatch.setattr(publishing, "_FIRST_PAUSE_S", 0.0)
    bus = HeldBus()
    bus.failures = [BackendUnavailable("away") for _ in range(3)]
    publisher = DecisionPublisher(bus, capacity=10)
    async with running(publisher):
        await publisher.submit(event("a"), wait_s=0.0)
        await bus.has(1)
    assert publisher.pending == 0


async def test_an_event_refused_for_good_does_not_block_the_queue() -> None:
    """What the bus will never take is counted as lost; those behind it are published."""
    bus = HeldBus()
    bus.failures = [ValueError("too large")]
    publisher = DecisionPublisher(bus, capacity=1)
    async with running(publisher):
        await publisher.submit(event("a"), wait_s=0.0)
        await publisher.submit(event("b"), wait_s=5.0)
        await bus.has(1)
    assert bus.published == ["b"]


async def test_drain_publishes_what_was_still_pending() -> None:
    """At a clean stop every decision taken in is acknowledged, those in hand when the task was cancelled too."""
    bus = HeldBus()
    bus.open.clear()
    publisher = DecisionPublisher(bus, capacity=10)
    async with running(publisher):
        for name in "abc":
            await publisher.submit(event(name), wait_s=0.0)
    assert publisher.pending == 3
    bus.open.set()
    await publisher.drain()
    assert sorted(bus.published) == ["a", "b", "c"]
    assert publisher.pending == 0


async def test_drain_ends_in_time_when_the_bus_stays_away() -> None:
    """A stop is not held up for ever; what is lost then stays counted as pending."""
    bus = HeldBus()
    bus.open.clear()
    publisher = DecisionPublisher(bus, capacity=10)
    await publisher.submit(event("a"), wait_s=0.0)
    await publisher.drain(within_s=0.01)
    assert publisher.pending == 1
