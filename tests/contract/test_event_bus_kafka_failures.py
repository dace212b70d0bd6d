"""What the Kafka event bus does when things go wrong: brokers that die, groups that restart, sends that fail."""

import asyncio
import random
import sys
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaConsumer

from binnacle.events.v1.document_submitted_pb2 import DocumentSubmitted
from binnacle.events.v1.producer_reported_pb2 import ProducerReported
from servicekit.adapters.kafka.event_bus import KafkaEventBus, open_event_bus
from servicekit.adapters.kafka.session import ProducerSession
from servicekit.domain.identity import new_identity
from servicekit.errors import BackendUnavailable, InvalidRequest
from servicekit.events.lanes import Backoff
from servicekit.events.topics import DOCUMENT_SUBMITTED, PRODUCER_REPORTED, consumer_group
from servicekit.ports.clock import SystemClock
from servicekit.ports.event_bus import OutgoingEvent, Subscription
from servicekit.testing.conformance.event_bus import TOPIC, Recorder, feedback
from services.local.broker import run_broker
from services.local.evictions import find_evictions
from tests.kafka_harness import broker_process, free_port


def _open(
    bootstrap: str, *, publish_timeout_s: float = 10, start_within_s: float = 10, query: str = "?session_s=2"
) -> AbstractAsyncContextManager[KafkaEventBus]:
    return open_event_bus(
        f"kafka://{bootstrap}{query}",
        identity=new_identity("gateway", start_time=datetime.now(UTC)),
        clock=SystemClock(),
        publish_timeout_s=publish_timeout_s,
        start_within_s=start_within_s,
        backoff=Backoff(initial_s=0.01, max_s=0.1),
    )


async def test_publishing_and_consuming_survive_a_killed_broker() -> None:
    """After kill -9, a broker reborn empty at the same doorway is found again by both halves of the bus."""
    port, done = free_port(), Recorder()
    async with broker_process(port) as first, _open(f"127.0.0.1:{port}", publish_timeout_s=20) as bus:
        bus.subscribe(Subscription(TOPIC, "analytics", done))
        await bus.start_consuming()
        await bus.publish(feedback("before"))
        await done.wait_for(1)
        first.kill()
        await first.wait()
        with pytest.raises(BackendUnavailable):
            await bus.ping()
        async with broker_process(port):
            await bus.publish(feedback("after"))
            await done.wait_for(2)
            assert done.ids == ["before", "after"]
            await bus.ping()


async def test_unacknowledged_publish_is_not_recorded() -> None:
    """With no broker a publish fails in its time, says EVENT_NOT_RECORDED, and leaves no hole behind."""
    async with run_broker() as broker, _open(broker.bootstrap, publish_timeout_s=0.5) as bus:
        await bus.publish(feedback("before"))
        session = bus._sessions.current
        assert session is not None
        session.give_up(RuntimeError("told to break"))
        bus._sessions._servers = ("127.0.0.1:1",)
        with pytest.raises(BackendUnavailable) as failure:
            await bus.publish(feedback("lost"))
        assert failure.value.reason == "EVENT_NOT_RECORDED"
        bus._sessions._servers = (broker.bootstrap,)
        assert bus.ledger.in_flight() == 0
        assert [(mark.accepted, mark.abandoned) for mark in bus.ledger.marks()] == [(1, ())]


async def test_nothing_is_numbered_while_the_broker_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker known not to answer gets nothing to send; once it answers again, publishing goes on."""
    answers = False

    async def answer(_session: ProducerSession) -> bool:
        return answers

    async with run_broker() as broker, _open(broker.bootstrap, publish_timeout_s=0.3) as bus:
        monkeypatch.setattr(ProducerSession, "answers", answer)
        assert not await bus._sessions.check()
        with pytest.raises(BackendUnavailable):
            await bus.publish(feedback("lost"))
        assert bus.ledger.marks() == ()
        answers = True
        await bus._sessions.check()
        await bus.publish(feedback("e1"))
        assert [(mark.accepted, mark.abandoned) for mark in bus.ledger.marks()] == [(1, ())]


async def test_timed_out_send_is_abandoned_and_its_late_acknowledgement_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A send whose acknowledgement comes after the timeout is abandoned first and accepted later."""
    send, held = ProducerSession.send, []

    async def send_held(self: ProducerSession, *args: object, **named: object) -> asyncio.Future[object]:
        await send(self, *args, **named)
        held.append(asyncio.get_running_loop().create_future())
        return held[-1]

    async with run_broker() as broker, _open(broker.bootstrap, publish_timeout_s=0.2) as bus:
        monkeypatch.setattr(ProducerSession, "send", send_held)
        with pytest.raises(BackendUnavailable):
            await bus.publish(feedback("slow"))
        assert [(mark.accepted, mark.abandoned) for mark in bus.ledger.marks()] == [(1, (1,))]
        held[0].set_result(None)
        await asyncio.sleep(0)
        assert [(mark.accepted, mark.abandoned) for mark in bus.ledger.marks()] == [(1, ())]
        monkeypatch.setattr(ProducerSession, "send", send)


async def test_broken_session_abandons_and_publishes_through_the_next() -> None:
    """A publish that was in flight when its session broke goes out again, under a new sequence."""
    async with run_broker() as broker, _open(broker.bootstrap) as bus:
        await bus.publish(feedback("e1"))
        session = bus._sessions.current
        assert session is not None
        publishing = asyncio.ensure_future(bus.publish(feedback("e2")))
        while not session._open and not publishing.done():
            await asyncio.sleep(0)
        session.give_up(RuntimeError("told to break"))
        await publishing
        (mark,) = bus.ledger.marks()
        assert (mark.accepted, mark.abandoned) == (3, (2,))


async def test_no_broker_at_start_is_said() -> None:
    """Opening a bus where nothing listens raises BackendUnavailable with the address."""
    with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:1"):
        async with _open("127.0.0.1:1", start_within_s=0.2):
            pass


async def test_oversized_event_is_refused_before_it_takes_a_sequence() -> None:
    """An event past its topic's bound is an invalid request, and the next one is unharmed."""
    async with run_broker() as broker, _open(broker.bootstrap) as bus:
        huge = feedback("huge")
        huge.message.comment = "x" * (2 * 1024 * 1024)
        with pytest.raises(InvalidRequest) as failure:
            await bus.publish(huge)
        assert failure.value.reason == "EVENT_TOO_LARGE"
        await bus.publish(feedback("small"))
        assert [mark.accepted for mark in bus.ledger.marks()] == [1]


async def test_large_document_goes_through() -> None:
    """A document of several megabytes is published and consumed whole."""
    async with run_broker() as broker, _open(broker.bootstrap) as bus:
        arrived: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def handle(event: object) -> None:
            arrived.set_result(len(event.payload))

        bus.subscribe(Subscription(DOCUMENT_SUBMITTED, "retriever", handle))
        await bus.start_consuming()
        message = DocumentSubmitted(document_id="d", content=bytes(range(256)) * 16_000)
        await bus.publish(OutgoingEvent(DOCUMENT_SUBMITTED, "d", "e", "acme", message))
        async with asyncio.timeout(10):
            assert await arrived == message.ByteSize()


@pytest.mark.parametrize("query", ["?session_s=2", "?session_s=2&instance=replica-0"])
async def test_restarted_group_goes_on_behind_what_was_handled(query: str) -> None:
    """A clean stop commits exactly what was handled: a restart repeats nothing and skips nothing."""
    async with run_broker() as broker:
        first, second = Recorder(), Recorder()
        first.hold["e2"] = asyncio.Event()
        async with _open(broker.bootstrap, query=query) as bus:
            for name in ("e1", "e2", "e3"):
                await bus.publish(feedback(name))
            bus.subscribe(Subscription(TOPIC, "analytics", first))
            await bus.start_consuming()
            while "e2" not in first.begun:
                await asyncio.sleep(0.01)
            stopping = asyncio.ensure_future(bus.stop_consuming())
            await asyncio.sleep(0)
            first.hold["e2"].set()
            await stopping
        async with _open(broker.bootstrap, query=query) as bus:
            bus.subscribe(Subscription(TOPIC, "analytics", second))
            await bus.start_consuming()
            await second.wait_for(1)
            await bus.stop_consuming()
        assert (first.ids, second.ids) == (["e1", "e2"], ["e3"])


async def test_stop_gives_up_on_an_event_that_keeps_failing() -> None:
    """An event in retry does not hold up a stop, and comes back to the next consumer."""
    async with run_broker() as broker:
        failing, healthy = Recorder(), Recorder()
        failing.fail_times["e1"] = 10_000
        async with _open(broker.bootstrap) as bus:
            await bus.publish(feedback("e1"))
            bus.subscribe(Subscription(TOPIC, "analytics", failing))
            await bus.start_consuming()
            while len(failing.begun) < 3:
                await asyncio.sleep(0.01)
        async with _open(broker.bootstrap) as bus:
            bus.subscribe(Subscription(TOPIC, "analytics", healthy))
            await bus.start_consuming()
            await healthy.wait_for(1)
        assert healthy.ids == ["e1"]


_CONSUME_UNTIL_KILLED = """
import asyncio, sys
from datetime import UTC, datetime
from servicekit.adapters.registry import open_event_bus
from servicekit.domain.identity import new_identity
from servicekit.ports.clock import SystemClock
from servicekit.ports.event_bus import Subscription

async def main(url, topic):
    begun = asyncio.Event()
    async def hang(event):
        print("begun", flush=True)
        await asyncio.Event().wait()
    identity = new_identity("evaluator", start_time=datetime.now(UTC))
    async with open_event_bus(url, identity=identity, clock=SystemClock()) as bus:
        bus.subscribe(Subscription(topic, "evaluator", hang))
        await bus.start_consuming()
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_event_in_hand_at_kill_nine_comes_back() -> None:
    """A consumer killed in a handler has committed nothing of it: the next one gets the event."""
    async with run_broker() as broker, _open(broker.bootstrap) as bus:
        await bus.publish(feedback("e1"))
        url = f"kafka://{broker.bootstrap}?session_s=2"
        killed = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _CONSUME_UNTIL_KILLED, url, TOPIC, stdout=asyncio.subprocess.PIPE
        )
        assert killed.stdout is not None
        async with asyncio.timeout(20):
            while b"begun" not in (line := await killed.stdout.readline()):
                assert line, "the consumer ended"
        killed.kill()
        await killed.communicate()
        done = Recorder()
        bus.subscribe(Subscription(TOPIC, "evaluator", done))
        await bus.start_consuming()
        await done.wait_for(1)
        assert done.ids == ["e1"]


async def test_clean_stop_reports_what_is_safe() -> None:
    """The last report is final and marks every acknowledged sequence."""
    async with run_broker() as broker:
        async with _open(broker.bootstrap) as bus:
            await asyncio.gather(*(bus.publish(feedback(f"e{n}", key=f"k{n}")) for n in range(20)))
        consumer = AIOKafkaConsumer(PRODUCER_REPORTED, bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest")
        async with consumer, asyncio.timeout(10):
            record = await consumer.getone()
        report = ProducerReported.FromString(record.value)
        assert report.final
        assert report.source == "gateway"
        assert sum(mark.accepted for mark in report.marks) == 20
        assert {mark.topic for mark in report.marks} == {TOPIC}


async def test_eviction_before_a_commit_is_noticed() -> None:
    """Records that the embedded broker dropped before a group committed them are counted for that group."""
    async with run_broker() as broker, _open(broker.bootstrap) as bus:
        await bus.publish(feedback("e"))
        assert await asyncio.to_thread(find_evictions, broker.bootstrap) == []
        for number in range(16):
            big = feedback(f"big{number}")
            big.message.comment = random.Random(number).randbytes(500_000).hex()
            await bus.publish(big)
        found = await asyncio.to_thread(find_evictions, broker.bootstrap)
        assert {eviction.group for eviction in found} == {"analytics", consumer_group(TOPIC, "evaluator")}
        assert {(eviction.topic, eviction.committed) for eviction in found} == {(TOPIC, 0)}
        assert all(0 < eviction.lost < 17 for eviction in found)
