"""A fetched batch is handled and committed whatever its records claim; nothing is passed over."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from servicekit.adapters.kafka.intake import Intake
from servicekit.domain.envelope import Envelope, ReceivedEvent
from servicekit.events.codec import encode_headers
from servicekit.events.dead_letters import DeadLetter
from servicekit.events.lanes import Backoff
from servicekit.ports.event_bus import Subscription

_PARTITION = TopicPartition("t", 0)
_ENVELOPE = Envelope(id="e", source="s", type="T", tenant="acme", producer="p", sequence=1)


class FakeConsumer:
    """Owns one partition and remembers commits."""

    def __init__(self) -> None:
        self.commits: list[dict[TopicPartition, int]] = []

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
    intake = Intake(Subscription("t", "g", handle), consumer=lambda: consumer, send_dead_letter=send, backoff=Backoff())
    await intake.handle([_fetched(0, 1_700_000_000_000), _fetched(1, timestamp_ms), _fetched(2, 1_700_000_000_000)])
    assert handled == [0, 1, 2]
    assert consumer.commits == [{_PARTITION: 3}]
