"""Consumers read a real Kafka, by time and in groups of several members too.

Each test deletes Binnacle's topics on the Kafka of the `real_kafka` fixture.
"""

import asyncio
from datetime import UTC, datetime

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from binnacle.events.v1.feedback_recorded_pb2 import FeedbackRecorded
from binnacle_client.events import Event, open_events
from servicekit.adapters.kafka.topic_setup import create_missing_topics
from tests.consumer_suite import ConsumerSuite, names_of, send, take

_HOUR_MS = 3_600_000

pytestmark = pytest.mark.servers


@pytest.fixture
async def kafka(real_kafka: str) -> str:
    """Binnacle's topics, empty, and with them what groups had committed."""
    admin = AIOKafkaAdminClient(bootstrap_servers=real_kafka)
    await admin.start()
    try:
        async with asyncio.timeout(20):
            while ours := [name for name in await admin.list_topics() if name.startswith("binnacle.")]:
                await admin.delete_topics(ours)
    finally:
        await admin.close()
    await create_missing_topics([real_kafka])
    return real_kafka


class TestConsumerOnRealKafka(ConsumerSuite):
    """All of the suite."""


@pytest.mark.parametrize("group", [None, "since"])
async def test_reading_begins_at_a_time(kafka: str, group: str | None) -> None:
    """From a time on: what was sent at it or later, in every partition; nothing in those that end before it."""
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    await send(kafka, ["before"], at_ms=now_ms - 2 * _HOUR_MS)
    await send(kafka, ["then"], at_ms=now_ms - _HOUR_MS)
    await send(kafka, ["after"], at_ms=now_ms)
    await send(kafka, ["elsewhere, before"], partition=0, at_ms=now_ms - 2 * _HOUR_MS)
    since = datetime.fromtimestamp((now_ms - _HOUR_MS) / 1000, tz=UTC)
    async with open_events(FeedbackRecorded, servers=kafka, group=group, start=since) as events:
        taken = await take(events, 2)
        await events.ack(*taken)
        await send(kafka, ["new"], partition=0)
        assert names_of(taken + await take(events, 1)) == ["then", "after", "new"]


async def test_a_group_forgets_the_start_once_it_has_one(kafka: str) -> None:
    """The time is where a group begins; restarted with it, the group goes on where it stopped."""
    await send(kafka, ["e0", "e1"])
    since = datetime.fromtimestamp(0, tz=UTC)
    for expected in ("e0", "e1"):
        async with open_events(FeedbackRecorded, servers=kafka, group="begins", start=since) as events:
            (event,) = await take(events, 1)
            await event.ack()
            assert names_of([event]) == [expected]


async def test_two_members_share_and_hand_over(kafka: str) -> None:
    """Members divide the partitions; when one leaves, the other takes over: all comes, acknowledged events once."""
    done: list[str] = []
    names = [f"e{number}" for number in range(240)]

    async def work(count: int) -> None:
        async with open_events(FeedbackRecorded, servers=kafka, group="shared") as events:
            mine = 0
            while mine < count:
                event = await anext(events)
                assert isinstance(event, Event)
                if await event.ack():
                    done.append(event.payload.request_id)
                    mine += 1

    async with asyncio.timeout(60):
        staying, leaving = asyncio.create_task(work(1000)), asyncio.create_task(work(20))
        for position, name in enumerate(names):
            await send(kafka, [name], partition=position % 6)
        await leaving
        while set(done) != set(names):  # no event for two lists
            await asyncio.sleep(0.05)
        staying.cancel()
        await asyncio.wait({staying})
    assert sorted(done) == sorted(names)


async def test_events_in_hand_in_a_rebalance_count_if_acknowledged_in_time(kafka: str) -> None:
    """A member that acknowledges while partitions move commits; later it is told that the event comes again."""
    await send(kafka, ["e0"])
    async with open_events(FeedbackRecorded, servers=kafka, group="moving") as first:
        (held,) = await take(first, 1)
        async with open_events(FeedbackRecorded, servers=kafka, group="moving") as second:
            waiting = asyncio.ensure_future(anext(second))
            async with asyncio.timeout(30):
                while held.delivery.window.live:
                    await asyncio.sleep(0.05)
            assert not await held.ack()
            rest = asyncio.ensure_future(anext(first))
            async with asyncio.timeout(30):
                await asyncio.wait({waiting, rest}, return_when=asyncio.FIRST_COMPLETED)
            for task in (waiting, rest):
                if task.done():
                    event = task.result()
                    assert isinstance(event, Event)
                    assert event.identity == held.identity
                    assert await event.ack()
                task.cancel()
            await asyncio.wait({waiting, rest})
