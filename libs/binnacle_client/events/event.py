"""What a consumer is handed: a typed event, or a record that is none. Made by `stream.py`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from google.protobuf.message import Message

from binnacle_client.events.window import Window
from servicekit.domain.envelope import Envelope
from servicekit.events.dead_letters import Record

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        """For messages: `binnacle.feedback.recorded.v1[3]@42`."""
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A record that was handed out, and the window that waits for its acknowledgement."""

    record: Record
    window: Window


Settle = Callable[[Delivery], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Event(Generic[M]):
    """One event. `time` is when its producer sent it, `key` decides its partition and so its order.

    A `tombstone` (compacted topics only) says that the key is deleted; its payload is empty.
    """

    payload: M
    envelope: Envelope
    place: Place
    key: str
    time: datetime
    tombstone: bool
    delivery: Delivery = field(repr=False, compare=False)
    settle: Settle = field(repr=False, compare=False)

    @property
    def identity(self) -> tuple[str, str]:
        """(source, id): the same for every copy of this event, on whatever place."""
        return self.envelope.source, self.envelope.id

    async def ack(self) -> bool:
        """This event is done; see `EventStream.ack`."""
        return await self.settle(self.delivery)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that is no event of its topic, untouched in `record`; acknowledge it once it is dealt with.

    `stage` is `envelope` (headers or key) or `decode` (type or bytes); `reason` says what is wrong.
    """

    stage: str
    reason: str
    record: Record
    place: Place
    delivery: Delivery = field(repr=False, compare=False)
    settle: Settle = field(repr=False, compare=False)

    async def ack(self) -> bool:
        """This record is dealt with; see `EventStream.ack`."""
        return await self.settle(self.delivery)
