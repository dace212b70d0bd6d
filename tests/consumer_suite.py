"""What `binnacle_client.events` promises a consumer, whichever Kafka it reads from.

Inherited by the contract tests against the embedded broker and against a real one; each gives a fixture `kafka`, the
bootstrap address of a Kafka on which Binnacle's topics exist and are empty.
"""

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from typing import ClassVar

import pytest
from aiokafka import AIOKafkaProducer

from binnacle.events.v1.feedback_recorded_pb2 import FeedbackRecorded
from binnacle_client.events import Event, EventStream, Limits, Rejected, StartAt, open_events
from servicekit.domain.envelope import Envelope
from servicekit.errors import NotReady
from servicekit.events.codec import encode_headers
from servicekit.events.topics import FEEDBACK_RECORDED

PARTITION = 2
_WITHIN_S = 30.0


def headers_of(name: str) -> list[tuple[str, bytes]]:
    """The envelope of the event of that name."""
    envelope = Envelope(
        id=name, source="gateway", type=FeedbackRecorded.DESCRIPTOR.full_name, tenant="acme", producer="p1", sequence=7
    )
    return list(encode_headers(envelope))


async def send(kafka: str, names: Sequence[str], *, partition: int = PARTITION, at_ms: int | None = None) -> None:
    """Feedback whose request id is its name, in order."""
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        for name in names:
            value = FeedbackRecorded(request_id=name).SerializeToString()
            await producer.send_and_wait(
                FEEDBACK_RECORDED,
                value,
                key=name.encode(),
                headers=headers_of(name),
                partition=partition,
                timestamp_ms=at_ms,
            )


async def take(events: EventStream[FeedbackRecorded], count: int) -> list[Event[FeedbackRecorded]]:
    """The next `count` events, none of them rejected."""
    taken: list[Event[FeedbackRecorded]] = []
    async with asyncio.timeout(_WITHIN_S):
        while len(taken) < count:
            event = await anext(events)
            assert isinstance(event, Event), event
            taken.append(event)
    return taken


def names_of(events: Sequence[Event[FeedbackRecorded]]) -> list[str]:
    """Their names."""
    return [event.payload.request_id for event in events]


KILLED = """
import asyncio, json, sys
from binnacle.events.v1.feedback_recorded_pb2 import FeedbackRecorded
from binnacle_client.events import open_events

async def main(kafka, group, acknowledged, settings):
    async with open_events(
        FeedbackRecorded, servers=kafka, group=group, client_settings=json.loads(settings)
    ) as events:
        count = 0
        async for event in events:
            count += 1
            if count > int(acknowledged):
                print("in hand", flush=True)
                await asyncio.Event().wait()
            await event.ack()

asyncio.run(main(*sys.argv[1:]))
"""


class ConsumerSuite:
    """Tests that hold on every Kafka; `client_settings` says how long one waits for members that are gone."""

    client_settings: ClassVar[Mapping[str, int]] = {"session_timeout_ms": 6000}

    async def test_events_come_typed_with_envelope_and_place(self, kafka: str) -> None:
        """An event has its message, envelope, key, place and time."""
        await send(kafka, ["e1"], at_ms=1_750_000_000_000)
        async with open_events(
            FeedbackRecorded, servers=kafka, client_settings=self.client_settings, group="typed"
        ) as events:
            (event,) = await take(events, 1)
            assert await event.ack()
        assert event.payload == FeedbackRecorded(request_id="e1")
        assert (event.identity, event.envelope.tenant) == (("gateway", "e1"), "acme")
        assert (event.envelope.producer, event.envelope.sequence, event.key) == ("p1", 7, "e1")
        assert str(event.place) == f"{FEEDBACK_RECORDED}[{PARTITION}]@0"
        assert event.time.timestamp() == 1_750_000_000
        assert not event.tombstone

    async def test_a_group_goes_on_at_the_first_unacknowledged(self, kafka: str) -> None:
        """What was acknowledged with no gap before it does not come again, what was not does, and so does the rest."""
        await send(kafka, [f"e{number}" for number in range(6)])
        async with open_events(
            FeedbackRecorded, servers=kafka, client_settings=self.client_settings, group="resumes"
        ) as events:
            taken = await take(events, 5)
            assert await events.ack(taken[0], taken[1], taken[3])
        async with open_events(
            FeedbackRecorded, servers=kafka, client_settings=self.client_settings, group="resumes"
        ) as events:
            assert names_of(await take(events, 4)) == ["e2", "e3", "e4", "e5"]

    async def test_acknowledged_in_reverse_all_of_it_is_committed(self, kafka: str) -> None:
        """Acknowledgements that were held back count once the gap is closed."""
        await send(kafka, ["e0", "e1", "e2"])
        async with open_events(
            FeedbackRecorded, servers=kafka, client_settings=self.client_settings, group="reverse"
        ) as events:
            for event in reversed(await take(events, 3)):
                assert await event.ack()
        await send(kafka, ["e3"])
        async with open_events(
            FeedbackRecorded, servers=kafka, client_settings=self.client_settings, group="reverse"
        ) as events:
            assert names_of(await take(events, 1)) == ["e3"]

    async def test_after_kill_nine_the_first_unacknowledged_comes_again(self, kafka: str) -> None:
        """A process killed with an event in hand has committed all before it and nothing of it."""
        await send(kafka, [f"e{number}" for number in range(5)])
        killed = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            KILLED,
            kafka,
            "killed",
            "3",
            json.dumps(self.client_settings),
            stdout=asyncio.subprocess.PIPE,
        )
        assert killed.stdout is not None
        async with asyncio.timeout(_WITHIN_S):
            assert await killed.stdout.readline() == b"in hand\n"
        killed.kill()
        await killed.communicate()
        async with open_events(
            FeedbackRecorded, servers=kafka, client_settings=self.client_settings, group="killed"
        ) as events:
            assert names_of(await take(events, 2)) == ["e3", "e4"]

    async def test_what_is_no_event_is_handed_over(self, kafka: str) -> None:
        """Records that do not parse come as `Rejected`, with bytes and reason, and the stream goes on."""
        await send(kafka, ["e1"])
        async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
            await producer.send_and_wait(FEEDBACK_RECORDED, b"\xff", headers=headers_of("bad"), partition=PARTITION)
            await producer.send_and_wait(FEEDBACK_RECORDED, b"{}", partition=PARTITION)
        await send(kafka, ["e2"])
        async with (
            open_events(
                FeedbackRecorded, servers=kafka, client_settings=self.client_settings, group="rejects"
            ) as events,
            asyncio.timeout(_WITHIN_S),
        ):
            came = [await anext(events) for _ in range(4)]
            assert await events.ack(*came)
        undecodable, foreign = came[1:3]
        assert isinstance(undecodable, Rejected)
        assert (undecodable.stage, undecodable.record.value) == ("decode", b"\xff")
        assert "FeedbackRecorded" in undecodable.reason
        assert isinstance(foreign, Rejected)
        assert (foreign.stage, foreign.record.value, foreign.place.offset) == ("envelope", b"{}", 2)
        assert isinstance(came[3], Event)

    async def test_without_a_group_everybody_reads_everything(self, kafka: str) -> None:
        """A reader without a group begins where it likes, commits nothing and takes nothing from a group."""
        await send(kafka, ["e1", "e2"])
        for _ in range(2):
            async with open_events(FeedbackRecorded, servers=kafka) as events:
                taken = await take(events, 2)
                assert await taken[0].ack()
                assert names_of(taken) == ["e1", "e2"]

    @pytest.mark.parametrize("group", [None, "latest"])
    async def test_latest_is_what_comes_after_the_opening(self, kafka: str, group: str | None) -> None:
        """From the end on: nothing older comes."""
        await send(kafka, ["old"])
        async with open_events(
            FeedbackRecorded, servers=kafka, client_settings=self.client_settings, group=group, start=StartAt.LATEST
        ) as events:
            first = asyncio.ensure_future(take(events, 1))
            if group is not None:
                await _until_started(events)
            await send(kafka, ["new"])
            assert names_of(await first) == ["new"]

    async def test_latest_is_remembered(self, kafka: str) -> None:
        """A group that began at the end and died before its first event misses nothing that came meanwhile."""
        await send(kafka, ["old"])
        for group_starts in range(2):
            async with open_events(
                FeedbackRecorded,
                servers=kafka,
                client_settings=self.client_settings,
                group="dies",
                start=StartAt.LATEST,
            ) as events:
                if group_starts:
                    assert names_of(await take(events, 1)) == ["meanwhile"]
                else:
                    await _until_started(events)
                    await send(kafka, ["meanwhile"])

    async def test_unacknowledged_events_are_bounded(self, kafka: str) -> None:
        """No more than the bound is handed out; then iteration says what was not acknowledged."""
        await send(kafka, [f"e{number}" for number in range(5)])
        limits = Limits(max_unacknowledged=3, acknowledge_within_s=0.2)
        async with open_events(
            FeedbackRecorded, servers=kafka, client_settings=self.client_settings, group="bounded", limits=limits
        ) as events:
            taken = await take(events, 3)
            await events.ack(taken[1], taken[2])
            with pytest.raises(NotReady, match=r"feedback\.recorded\.v1\[2\]@0.*call ack\(\)"):
                await take(events, 1)
            await taken[0].ack()
            assert names_of(await take(events, 2)) == ["e3", "e4"]

    async def test_room_is_made_by_another_task(self, kafka: str) -> None:
        """Iteration that waits for room goes on when a handler elsewhere acknowledges."""
        await send(kafka, ["e0", "e1"])
        async with open_events(
            FeedbackRecorded,
            servers=kafka,
            client_settings=self.client_settings,
            group="room",
            limits=Limits(max_unacknowledged=1),
        ) as events:
            (first,) = await take(events, 1)
            second = asyncio.ensure_future(take(events, 1))
            await asyncio.sleep(0)
            assert not second.done()
            await first.ack()
            assert names_of(await second) == ["e1"]

    async def test_giving_up_waiting_loses_nothing(self, kafka: str) -> None:
        """A reader that stops waiting for the next event gets it when it asks again."""
        async with open_events(
            FeedbackRecorded, servers=kafka, client_settings=self.client_settings, group="patience"
        ) as events:
            for number in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await anext(events)
                await send(kafka, [f"e{number}"])
                assert names_of(await take(events, 1)) == [f"e{number}"]


async def _until_started(events: EventStream[FeedbackRecorded]) -> None:
    """Until the group has given this member its partitions."""
    async with asyncio.timeout(_WITHIN_S):
        while not events._reader._windows:
            await asyncio.sleep(0.02)
