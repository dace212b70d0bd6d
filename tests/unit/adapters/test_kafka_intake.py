"""A fetched batch is handled and committed whatever its records claim; nothing is passed over."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from servicekit.adapters.kafka.intake import Intake
from servicekit.domain.envelope import Envelope, ReceivedEvent
from servicekit.events.codec import encode_headers
from servicekit.events.dead_letter_cap import DeadLetterCap
from servicekit.events.dead_letters import DeadLetter
from servicekit.events.lanes import Backoff
from servicekit.ports.event_bus import DeadLetterLimits, RejectedEvent, Subscription
from servicekit.testing.clocks import FakeClock

_PARTITION = TopicPartition("t", 0)
_ENVELOPE = Envelope(id="e", source="s", type="T", tenant="acme", producer="p", sequence=1)


class FakeConsumer:
    """Owns one partition and remembers commits."""

    def __init__(self) -> None:
        self.commits: list[dict[TopicPartition, int]] = []
        self.held: set[TopicPartition] = set()

    def pause(self, *partitions: TopicPartition) -> None:
        """Remember them."""
        self.held |= set(partitions)

    def assignment(self) -> set[TopicPartition]:
        """What is owned."""
        return {_PARTITION}

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        """Remember them."""
        self.commits.append(offsets)

    def highwater(self, _partition: TopicPartition) -> None:
        """Unknown."""


def _fetched(offset: int, timestamp_ms: int) -> Any:
    return SimpleNamespace(
        topic="t",
        partition=0,
        offset=offset,
        key=b"k",
        value=b"",
        headers=encode_headers(_ENVELOPE),
        timestamp=timestamp_ms,
    )


@pytest.mark.parametrize("timestamp_ms", [-1, 2**62, -(2**63)])
async def test_a_record_with_an_absurd_time_does_not_lose_its_batch(timestamp_ms: int) -> None:
    """The producer states a record's time; whatever it says, the batch around it is handled and committed."""
    handled: list[int] = []

    async def handle(event: ReceivedEvent) -> None:
        handled.append(event.offset)

    async def send(_letter: DeadLetter) -> None:
        raise AssertionError("nothing here is a dead letter")

    consumer = FakeConsumer()
    intake = Intake(
        Subscription("t", "g", handle),
        consumer=lambda: consumer,
        send_dead_letter=send,
        backoff=Backoff(),
        cap=DeadLetterCap(DeadLetterLimits()),
        clock=FakeClock(),
    )
    await intake.handle([_fetched(0, 1_700_000_000_000), _fetched(1, timestamp_ms), _fetched(2, 1_700_000_000_000)])
    assert handled == [0, 1, 2]
    assert consumer.commits == [{_PARTITION: 3}]


async def test_a_consumer_that_dead_letters_stopped_fetches_no_more() -> None:
    """What was done before is committed, the partitions are paused, and a batch that still comes moves nothing."""
    letters: list[DeadLetter] = []

    async def refuse(_event: ReceivedEvent) -> None:
        raise RejectedEvent("no", stage="apply")

    async def send(letter: DeadLetter) -> None:
        letters.append(letter)

    consumer = FakeConsumer()
    intake = Intake(
        Subscription("t", "g", refuse),
        consumer=lambda: consumer,
        send_dead_letter=send,
        backoff=Backoff(),
        cap=DeadLetterCap(DeadLetterLimits(max_in_a_row=2)),
        clock=FakeClock(),
    )
    await intake.handle([_fetched(offset, 0) for offset in range(5)])
    consumer.held.clear()  # as a rebalance does
    await intake.handle([_fetched(5, 0)])
    assert len(letters) == 2
    assert consumer.commits == [{_PARTITION: 2}]
    assert consumer.held == {_PARTITION}
