"""The Kafka event bus with a spool: no publish fails while Kafka is away, and all of it arrives, in order, later."""

import asyncio
import os
import signal
import sqlite3
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import TopicAuthorizationFailedError

from binnacle.events.v1.producer_reported_pb2 import ProducerReported
from servicekit.adapters.kafka.event_bus import KafkaEventBus, open_event_bus
from servicekit.adapters.kafka.session import ProducerSession
from servicekit.adapters.kafka.spool_file import SpoolFile
from servicekit.domain.envelope import Envelope
from servicekit.domain.identity import new_identity
from servicekit.errors import BackendUnavailable
from servicekit.events.codec import decode_headers
from servicekit.events.lanes import Backoff
from servicekit.events.topics import PRODUCER_REPORTED, TOPICS
from servicekit.ports.clock import SystemClock
from servicekit.ports.event_bus import OutgoingEvent, Subscription
from servicekit.testing.conformance.event_bus import TOPIC, Recorder, feedback
from services.local.broker import run_broker
from tests.kafka_harness import broker_process, free_port

_NOWHERE = "127.0.0.1:1"


@asynccontextmanager
async def _open(
    bootstrap: str, folder: Path, *, options: str = "", publish_timeout_s: float = 10
) -> AsyncIterator[KafkaEventBus]:
    async with open_event_bus(
        f"kafka://{bootstrap}?session_s=2{options}",
        identity=new_identity("gateway", start_time=datetime.now(UTC)),
        clock=SystemClock(),
        publish_timeout_s=publish_timeout_s,
        backoff=Backoff(initial_s=0.01, max_s=0.1),
        spool_dir=folder,
    ) as bus:
        yield bus


async def _until_drained(bus: KafkaEventBus, *, within_s: float = 20) -> None:
    async with asyncio.timeout(within_s):
        while bus._spool.lanes():
            await asyncio.sleep(0.01)


async def _read(bootstrap: str, topic: str = TOPIC) -> dict[int, list[Envelope]]:
    """Everything in a topic, by partition, in order."""
    found = defaultdict[int, list[Envelope]](list)
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=50)
    async with consumer, asyncio.timeout(20):
        ends = await consumer.end_offsets(list(consumer.assignment()))
        while any([await consumer.position(one) < end for one, end in ends.items()]):
            for partition, records in (await consumer.getmany(timeout_ms=100)).items():
                found[partition.partition] += [decode_headers(one.headers) for one in records]
    return found


def _first_sequences(found: Sequence[Envelope]) -> list[int]:
    """In the order in which each came first."""
    return list(dict.fromkeys(one.sequence for one in found))


async def _publish_many(bus: KafkaEventBus, first: int, count: int) -> None:
    for number in range(first, first + count):
        await bus.publish(feedback(f"e{number}", key=f"k{number % 5}"))


def _assert_whole(found: dict[int, list[Envelope]], bus: KafkaEventBus, *, events: int) -> None:
    """All of a producer's events are there, each partition's sequences without a hole and in order."""
    assert sum(len(_first_sequences(one)) for one in found.values()) == events
    marks = {mark.partition: mark for mark in bus.ledger.marks()}
    for partition, envelopes in found.items():
        assert _first_sequences(envelopes) == list(range(1, marks[partition].accepted + 1))
        assert marks[partition].abandoned == ()
        assert marks[partition].spooled == ()


async def test_steady_publishing_survives_an_outage_of_several_seconds(tmp_path: Path) -> None:
    """No publish fails, none takes much longer than the spool's delay, and each partition is whole and in order."""
    port, waits_s = free_port(), list[float]()
    loop = asyncio.get_running_loop()

    async def publish(number: int, bus: KafkaEventBus) -> None:
        begun_s = loop.time()
        await bus.publish(feedback(f"e{number}", key=f"k{number % 7}"))
        waits_s.append(loop.time() - begun_s)

    async with broker_process(port) as first, _open(f"127.0.0.1:{port}", tmp_path) as bus:
        number = 0
        async with asyncio.TaskGroup() as group:
            for phase_s, action in ((0.5, first.kill), (4.0, None)):
                until_s = loop.time() + phase_s
                while loop.time() < until_s:
                    group.create_task(publish(number, bus))
                    number += 1
                    await asyncio.sleep(0.005)
                if action is not None:
                    sent_before = number
                    while len(waits_s) < sent_before:
                        await asyncio.sleep(0.001)
                    action()
        before = sum(mark.accepted for mark in bus.ledger.marks())
        assert before == number
        spooled = {mark.partition: mark.spooled[0][0] for mark in bus.ledger.marks() if mark.spooled}
        async with broker_process(port):
            async with asyncio.TaskGroup() as group:
                for more in range(number, number + 100):
                    group.create_task(publish(more, bus))
                    await asyncio.sleep(0.005)
            await _until_drained(bus)
            found = await _read(f"127.0.0.1:{port}")
            assert bus.ledger.in_flight() == 0
            marks = {mark.partition: mark for mark in bus.ledger.marks()}
            assert sum(mark.accepted for mark in marks.values()) == number + 100
            for partition, mark in marks.items():  # the broker was reborn empty: what it had is gone with it
                assert _first_sequences(found[partition]) == list(range(spooled[partition], mark.accepted + 1))
                assert (mark.abandoned, mark.spooled) == ((), ())
    assert max(waits_s) < 2.0


async def test_slow_acknowledgement_is_taken_from_the_first_copy(tmp_path: Path) -> None:
    """A broker that hangs and goes on has every event once: the drain waits for what is under way already."""
    port = free_port()
    async with broker_process(port) as broker, _open(f"127.0.0.1:{port}", tmp_path) as bus:
        await _publish_many(bus, 0, 5)
        broker.send_signal(signal.SIGSTOP)
        await asyncio.gather(*(bus.publish(feedback(f"s{number}", key=f"k{number % 5}")) for number in range(50)))
        await _publish_many(bus, 100, 50)
        assert bus._spool.lanes()
        broker.send_signal(signal.SIGCONT)
        await _until_drained(bus)
        found = await _read(f"127.0.0.1:{port}")
        assert sum(len(one) for one in found.values()) == 105
        _assert_whole(found, bus, events=105)


_FILL_UNTIL_KILLED = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from servicekit.adapters.registry import open_event_bus
from servicekit.domain.identity import new_identity
from servicekit.ports.clock import SystemClock
from servicekit.testing.conformance.event_bus import feedback

async def main(url, folder):
    identity = new_identity("gateway", start_time=datetime.now(UTC))
    async with open_event_bus(url, identity=identity, clock=SystemClock(), spool_dir=Path(folder)) as bus:
        print("producer", identity.producer, flush=True)
        async def publish(first):
            for number in range(first, 10**9, 8):
                await bus.publish(feedback(f"e{number}", key=f"k{first}"))
                print("safe", number, flush=True)
        await asyncio.gather(*(publish(first) for first in range(8)))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_spool_of_a_killed_process_is_delivered_by_the_next(tmp_path: Path) -> None:
    """After kill -9 the next start sends what was promised, in order, under the headers of the process that died."""
    port, safe, producer = free_port(), set[str](), ""
    killed = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _FILL_UNTIL_KILLED,
        f"kafka://127.0.0.1:{port}",
        str(tmp_path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert killed.stdout is not None
    async with asyncio.timeout(30):
        while len(safe) < 500:
            word, _, rest = (await killed.stdout.readline()).decode().strip().partition(" ")
            producer = rest if word == "producer" else producer
            safe |= {f"e{rest}"} if word == "safe" else set()
    killed.kill()
    await killed.communicate()
    async with broker_process(port), _open(f"127.0.0.1:{port}", tmp_path) as bus:
        await _publish_many(bus, 0, 20)
        await _until_drained(bus)
        found = await _read(f"127.0.0.1:{port}")
        old = {n: [one for one in envelopes if one.producer == producer] for n, envelopes in found.items()}
        new = {n: [one for one in envelopes if one.producer != producer] for n, envelopes in found.items()}
        assert safe <= {one.id for envelopes in old.values() for one in envelopes}
        for partition, envelopes in old.items():
            assert [one.sequence for one in envelopes] == list(range(1, len(envelopes) + 1))
            assert found[partition][: len(envelopes)] == envelopes  # nothing new before what is old
        assert {(one.source, one.tenant, one.type) for envelopes in old.values() for one in envelopes} == {
            ("gateway", "acme", "binnacle.events.v1.FeedbackRecorded")
        }
        _assert_whole({n: one for n, one in new.items() if one}, bus, events=20)


async def test_bus_opens_while_kafka_is_away(tmp_path: Path) -> None:
    """It answers its ping, takes events into the partitions that the topic will have, and sends them later."""
    port, loop = free_port(), asyncio.get_running_loop()
    async with _open(f"127.0.0.1:{port}", tmp_path) as bus:
        await bus.ping()
        begun_s = loop.time()
        await _publish_many(bus, 0, 50)
        assert loop.time() - begun_s < 3.0  # not half a second for each
        async with broker_process(port):
            await _until_drained(bus)
            _assert_whole(await _read(f"127.0.0.1:{port}"), bus, events=50)
            await _publish_many(bus, 50, 5)
            assert not bus._spool.lanes()


async def test_consumers_join_when_kafka_comes(tmp_path: Path) -> None:
    """A service that starts without Kafka serves, and consumes as soon as Kafka is there."""
    port, done = free_port(), Recorder()
    async with _open(f"127.0.0.1:{port}", tmp_path) as bus:
        bus.subscribe(Subscription(TOPIC, "analytics", done))
        await bus.start_consuming()
        await bus.publish(feedback("e1"))
        async with broker_process(port):
            await done.wait_for(1)


async def test_full_spool_leaves_publishing_to_kafka(tmp_path: Path) -> None:
    """At the bound nothing is promised and nothing is numbered; the ping says so; Kafka's return heals it."""
    port = free_port()
    async with _open(f"127.0.0.1:{port}", tmp_path, options="&max_spool_bytes=1900000", publish_timeout_s=0.3) as bus:
        await asyncio.gather(*(bus.publish(_big(f"e{number}")) for number in range(3)))
        with pytest.raises(BackendUnavailable) as failure:
            await bus.publish(_big("e3"))
        assert failure.value.reason == "EVENT_NOT_RECORDED"
        assert sum(mark.accepted for mark in bus.ledger.marks()) == 3
        assert all(mark.abandoned == () for mark in bus.ledger.marks())
        with pytest.raises(BackendUnavailable):
            await bus.ping()
        async with broker_process(port):
            await _until_drained(bus)
            await bus.ping()
            await bus.publish(_big("after"))
            _assert_whole(await _read(f"127.0.0.1:{port}"), bus, events=4)


async def test_publish_at_the_bound_goes_through_once_kafka_is_back(tmp_path: Path) -> None:
    """A publish that waits because the spool is full is not lost when Kafka returns within its timeout."""
    port = free_port()
    async with _open(f"127.0.0.1:{port}", tmp_path, options="&max_spool_bytes=1048576", publish_timeout_s=20) as bus:
        await bus.publish(_big("e0"))
        waiting = asyncio.ensure_future(bus.publish(_big("e1")))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        async with broker_process(port):
            await waiting
            await _until_drained(bus)
            _assert_whole(await _read(f"127.0.0.1:{port}"), bus, events=2)


async def test_failing_disk_leaves_publishing_to_kafka(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Kafka the publish fails and is abandoned; with Kafka the disk is not missed."""
    port = free_port()

    def refuse(*args: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(SpoolFile, "apply", refuse)
    async with _open(f"127.0.0.1:{port}", tmp_path, publish_timeout_s=0.5) as bus:
        with pytest.raises(BackendUnavailable) as failure:
            await bus.publish(feedback("lost"))
        assert failure.value.reason == "EVENT_NOT_RECORDED"
        with pytest.raises(BackendUnavailable):
            await bus.ping()
        assert bus.ledger.in_flight() == 0
        async with broker_process(port):
            await _until_usable(bus)
            await _publish_many(bus, 0, 10)
            await bus.ping()
            found = await _read(f"127.0.0.1:{port}")
            assert {one.id for envelopes in found.values() for one in envelopes} == {f"e{n}" for n in range(10)}


async def _until_usable(bus: KafkaEventBus) -> None:
    async with asyncio.timeout(10):
        while bus._sessions.usable() is None:
            await asyncio.sleep(0.01)


async def test_broken_session_spools_under_the_same_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was in flight when the session broke is safe at once, and is sent again under the number that it has."""
    async with run_broker() as broker, _open(broker.bootstrap, tmp_path) as bus:
        await bus.publish(feedback("e1"))
        session = bus._sessions.current
        assert session is not None
        send = ProducerSession.send

        async def send_into_nothing(self: ProducerSession, *args: object, **named: object) -> asyncio.Future[object]:
            outcome = asyncio.get_running_loop().create_future()
            self._open.add(outcome)
            return outcome

        monkeypatch.setattr(ProducerSession, "send", send_into_nothing)
        publishing = [asyncio.ensure_future(bus.publish(feedback(f"e{number}"))) for number in range(2, 12)]
        async with asyncio.timeout(0.4):  # before the spool's delay
            while len(session._open) < 10:
                await asyncio.sleep(0)
            monkeypatch.setattr(ProducerSession, "send", send)
            session.give_up(RuntimeError("told to break"))
            await asyncio.gather(*publishing)
        await _until_drained(bus)
        _assert_whole(await _read(broker.bootstrap), bus, events=11)


async def test_refused_record_holds_up_its_partition_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While Kafka refuses one partition's records they stay spooled, in order, and the others are delivered."""
    refusing = True
    port = free_port()
    async with _open(f"127.0.0.1:{port}", tmp_path) as bus:
        await _publish_many(bus, 0, 20)
        lanes = bus._spool.lanes()
        refused = lanes[0]
        send = ProducerSession.send

        async def send_unless_refused(
            self: ProducerSession, topic: str, partition: int, **named: object
        ) -> asyncio.Future[object]:
            if refusing and (topic, partition) == refused:
                raise TopicAuthorizationFailedError(topic)
            return await send(self, topic, partition, **named)

        monkeypatch.setattr(ProducerSession, "send", send_unless_refused)
        async with broker_process(port):
            async with asyncio.timeout(20):
                while bus._spool.lanes() != (refused,):
                    await asyncio.sleep(0.01)
            refusing = False
            await _until_drained(bus)
            _assert_whole(await _read(f"127.0.0.1:{port}"), bus, events=20)


async def test_last_report_of_a_clean_stop_without_kafka_is_spooled(tmp_path: Path) -> None:
    """The next start delivers it: what it names as spooled was on disk, and then arrives."""
    port = free_port()
    async with _open(f"127.0.0.1:{port}", tmp_path) as bus:
        await _publish_many(bus, 0, 10)
        producer = bus._identity.producer
    async with broker_process(port), _open(f"127.0.0.1:{port}", tmp_path) as bus:
        await _until_drained(bus)
        assert bus.ledger.marks() == ()
        consumer = AIOKafkaConsumer(
            PRODUCER_REPORTED, bootstrap_servers=f"127.0.0.1:{port}", auto_offset_reset="earliest"
        )
        async with consumer, asyncio.timeout(10):
            record = await consumer.getone()
        report = ProducerReported.FromString(record.value)
        assert (report.producer, report.final) == (producer, True)
        assert sum(mark.accepted for mark in report.marks) == 10
        assert sum(one.last - one.first + 1 for mark in report.marks for one in mark.spooled) == 10
        assert sum(len(one) for one in (await _read(f"127.0.0.1:{port}")).values()) == 10


async def test_record_time_is_that_of_the_publish(tmp_path: Path) -> None:
    """A record that waited on disk keeps the time of its event, its key and its bytes."""
    port = free_port()
    async with _open(f"127.0.0.1:{port}", tmp_path) as bus:
        published = datetime.now(UTC).timestamp() * 1000
        event = feedback("e1", key="request-7")
        await bus.publish(event)
        await asyncio.sleep(0.3)
        async with broker_process(port):
            await _until_drained(bus)
            consumer = AIOKafkaConsumer(TOPIC, bootstrap_servers=f"127.0.0.1:{port}", auto_offset_reset="earliest")
            async with consumer, asyncio.timeout(10):
                record = await consumer.getone()
    assert abs(record.timestamp - published) < 250
    assert (record.key, record.value) == (b"request-7", event.message.SerializeToString(deterministic=True))


async def test_nothing_is_written_while_kafka_acknowledges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The normal path touches no disk."""
    written = 0
    apply = SpoolFile.apply

    def counted(self: SpoolFile, *args: object) -> None:
        nonlocal written
        written += 1
        apply(self, *args)

    monkeypatch.setattr(SpoolFile, "apply", counted)
    async with run_broker() as broker, _open(broker.bootstrap, tmp_path) as bus:
        await _publish_many(bus, 0, 50)
    assert written == 0


async def test_registered_partitions_serve_until_kafka_tells(tmp_path: Path) -> None:
    """An event spooled before any contact goes to the partition that it would have had."""
    async with run_broker() as broker, _open(broker.bootstrap, tmp_path / "a") as bus:
        await _publish_many(bus, 0, 20)
        with_kafka = {mark.partition: mark.accepted for mark in bus.ledger.marks()}
    async with _open(_NOWHERE, tmp_path / "b") as bus:
        await _publish_many(bus, 0, 20)
        assert {mark.partition: mark.accepted for mark in bus.ledger.marks()} == with_kafka
        assert max(with_kafka) < TOPICS[TOPIC].partitions


def _big(name: str) -> OutgoingEvent:
    event = feedback(name)
    event.message.comment = os.urandom(300_000).hex()
    return event
