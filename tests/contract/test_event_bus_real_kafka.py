"""The Kafka event bus keeps the contract of its port, and of its topics and groups, against a real Kafka.

Each test deletes Binnacle's topics on the Kafka of the `real_kafka` fixture.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from structlog.testing import capture_logs

from servicekit.events.topics import TOPICS, dead_letter_topic
from servicekit.ports.event_bus import Subscription
from servicekit.testing.conformance.event_bus import TOPIC, EventBusConformance, Recorder, feedback
from tests.kafka_harness import KafkaHarness

pytestmark = pytest.mark.servers


@pytest.fixture
async def admin(real_kafka: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """The administration of the Kafka under test."""
    client = AIOKafkaAdminClient(bootstrap_servers=real_kafka)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
async def harness(real_kafka: str, admin: AIOKafkaAdminClient) -> AsyncIterator[KafkaHarness]:
    """No topic of ours, and with the topics what groups had committed; buses connected to it."""
    await _delete_topics(admin)
    async with AsyncExitStack() as stack:
        yield KafkaHarness(real_kafka, stack)


async def _delete_topics(admin: AIOKafkaAdminClient) -> None:
    async with asyncio.timeout(20):
        while ours := [name for name in await admin.list_topics() if name.startswith("binnacle.")]:
            await admin.delete_topics(ours)


class TestRealKafkaEventBus(EventBusConformance):
    """All of the port's contract."""


async def test_topics_are_made_as_registered(harness: KafkaHarness, admin: AIOKafkaAdminClient) -> None:
    """Opening a bus makes every topic, with its partitions, retention or compaction, and largest message."""
    await harness.connect()
    partitions = {one["topic"]: len(one["partitions"]) for one in await admin.describe_topics(list(TOPICS))}
    assert partitions == {name: spec.partitions for name, spec in TOPICS.items()}
    for name, settings in (await _settings(admin, *TOPICS)).items():
        spec = TOPICS[name]
        assert settings["cleanup.policy"] == ("compact" if spec.compacted else "delete")
        assert int(settings["max.message.bytes"]) > spec.max_bytes
        if spec.retention is not None:
            assert int(settings["retention.ms"]) == spec.retention // timedelta(milliseconds=1)


async def test_topic_that_differs_is_reported_and_left_alone(harness: KafkaHarness, admin: AIOKafkaAdminClient) -> None:
    """A topic with other partitions and another retention stays as it is; the log and `binnacle topics` name both."""
    await admin.create_topics([NewTopic(TOPIC, 2, 1, topic_configs={"retention.ms": "3600000"})])
    async with asyncio.timeout(10):
        while TOPIC not in await admin.list_topics():
            await asyncio.sleep(0.02)
    with capture_logs() as logs:
        await harness.connect()
    told = {one["setting"] for one in logs if one["event"] == "kafka.topic_differs" and one["topic"] == TOPIC}
    assert told == {"partitions", "retention.ms", "max.message.bytes"}
    shown = await _binnacle_topics(harness.bootstrap)
    assert shown.returncode == 6
    states = {one["topic"]: one for one in map(json.loads, shown.stdout.splitlines())}
    differing = {one["setting"]: (one["found"], one["registered"]) for one in states[TOPIC]["differences"]}
    assert differing["partitions"] == ("2", str(TOPICS[TOPIC].partitions))
    assert differing["retention.ms"][0] == "3600000"
    assert [name for name, one in states.items() if one["missing"] or one["differences"]] == [TOPIC]


async def test_topics_as_registered_are_told_so(harness: KafkaHarness) -> None:
    """What the bus itself made has no difference: `binnacle topics` exits with 0."""
    await harness.connect()
    shown = await _binnacle_topics(harness.bootstrap)
    assert (shown.returncode, shown.stderr) == (0, "")


async def _binnacle_topics(bootstrap: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "BINNACLE_TARGET": "127.0.0.1:1", "BINNACLE_API_KEY": "none"}
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "binnacle_client.cli", "topics", "--json"],
        env={**environ, "KAFKA_BOOTSTRAP_SERVERS": bootstrap},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_dead_letters_have_a_topic_before_there_are_any(
    harness: KafkaHarness, admin: AIOKafkaAdminClient
) -> None:
    """A group's dead-letter topic is made when it starts, and keeps what a compacted topic would not."""
    bus, compacted = await harness.connect(), next(name for name, spec in TOPICS.items() if spec.compacted)
    bus.subscribe(Subscription(compacted, "analytics", Recorder()))
    await bus.start_consuming()
    letters = dead_letter_topic(compacted, "analytics")
    (made,) = await admin.describe_topics([letters])
    assert len(made["partitions"]) == TOPICS[compacted].partitions
    assert (await _settings(admin, letters))[letters]["cleanup.policy"] == "delete"


async def _settings(admin: AIOKafkaAdminClient, *topics: str) -> Mapping[str, Mapping[str, str]]:
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in topics])
    return {
        resource[3]: {entry[0]: entry[1] for entry in resource[4]}
        for answer in answers
        for resource in answer.resources
    }


async def test_replicas_of_a_group_share_and_hand_over(harness: KafkaHarness) -> None:
    """Two replicas divide the partitions; when one leaves, the other goes on: nothing is skipped or repeated."""
    first, second = Recorder(), Recorder()
    staying, leaving = await harness.connect(), await harness.connect()
    for bus, done in ((staying, first), (leaving, second)):
        bus.subscribe(Subscription(TOPIC, "evaluator", done))
        await bus.start_consuming()
    names = [f"e{number}" for number in range(300)]
    publishing = asyncio.create_task(_publish_slowly(harness, names))
    await first.wait_for(20)
    await second.wait_for(20)
    await leaving.stop_consuming()
    await publishing
    await first.wait_for(len(names) - len(second.ids))
    assert sorted(first.ids + second.ids) == sorted(names)


async def _publish_slowly(harness: KafkaHarness, names: list[str]) -> None:
    """One after the other, so that hand-overs meet events on their way."""
    bus = await harness.connect()
    for name in names:
        await bus.publish(feedback(name, key=name))


async def test_static_member_returns_without_a_rebalance(harness: KafkaHarness) -> None:
    """A replica that comes back under its name gets its partitions at once; the other keeps its own meanwhile."""
    first, second, returned = Recorder(), Recorder(), Recorder()
    staying = await harness.connect("?instance=a&session_s=30")
    restarting = await harness.connect("?instance=b&session_s=30")
    for bus, done in ((staying, first), (restarting, second)):
        bus.subscribe(Subscription(TOPIC, "drift_monitor", done))
        await bus.start_consuming()
    names = [f"e{number}" for number in range(60)]
    await _publish_slowly(harness, names)
    await _until_handled(first, second, count=60)
    await restarting.stop_consuming()
    await _publish_slowly(harness, [f"f{number}" for number in range(60)])
    again = await harness.connect("?instance=b&session_s=30")
    again.subscribe(Subscription(TOPIC, "drift_monitor", returned))
    await again.start_consuming()
    async with asyncio.timeout(15):  # half a session
        await _until_handled(first, second, returned, count=120)
    assert len(set(first.ids + second.ids + returned.ids)) == 120


async def _until_handled(*recorders: Recorder, count: int) -> None:
    async with asyncio.timeout(30):
        while sum(len(one.ids) for one in recorders) < count:  # no event for the sum of several
            await asyncio.sleep(0.02)


_HANG_IN_A_HANDLER = """
import asyncio, sys
from datetime import UTC, datetime
from servicekit.adapters.registry import open_event_bus
from servicekit.domain.identity import new_identity
from servicekit.ports.clock import SystemClock
from servicekit.ports.event_bus import Subscription

async def hang(event):
    print("begun", flush=True)
    await asyncio.Event().wait()

async def main(url, topic):
    identity = new_identity("evaluator", start_time=datetime.now(UTC))
    async with open_event_bus(url, identity=identity, clock=SystemClock()) as bus:
        bus.subscribe(Subscription(topic, "evaluator", hang))
        await bus.start_consuming()
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_event_in_hand_at_kill_nine_comes_back(harness: KafkaHarness) -> None:
    """A consumer killed in a handler has committed nothing of it: after its session the next one gets the event."""
    bus, done = await harness.connect(), Recorder()
    await bus.publish(feedback("e1"))
    killed = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _HANG_IN_A_HANDLER,
        f"kafka://{harness.bootstrap}?session_s=6",
        TOPIC,
        stdout=asyncio.subprocess.PIPE,
    )
    assert killed.stdout is not None
    async with asyncio.timeout(20):
        while b"begun" not in (line := await killed.stdout.readline()):
            assert line, "the consumer ended"
    killed.kill()
    await killed.communicate()
    bus.subscribe(Subscription(TOPIC, "evaluator", done))
    await bus.start_consuming()
    await done.wait_for(1)
    assert done.ids == ["e1"]


async def test_committed_position_is_that_of_the_last_handled_event(harness: KafkaHarness) -> None:
    """After a clean stop the group stands right behind what was handled, as a client of another kind sees it."""
    bus, done = await harness.connect(), Recorder()
    bus.subscribe(Subscription(TOPIC, "evaluator", done))
    await bus.start_consuming()
    for number in range(3):
        await bus.publish(feedback(f"e{number}"))
    await done.wait_for(3)
    await bus.stop_consuming()
    event = done.events[-1]
    consumer = AIOKafkaConsumer(
        TOPIC, bootstrap_servers=harness.bootstrap, group_id=f"evaluator.{TOPIC}", enable_auto_commit=False
    )
    async with consumer, asyncio.timeout(20):
        committed = [await consumer.committed(partition) for partition in consumer.assignment()]
    assert [one for one in committed if one is not None] == [event.offset + 1]
