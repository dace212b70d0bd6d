"""The event bus: publish with an acknowledgement, consume in batches and acknowledge after the effect.

Implemented by `adapters.kafka` (aiokafka, FastStream) and `adapters.memory`; used by every service.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import Message

from servicekit.domain.envelope import ReceivedEvent


@dataclass(frozen=True, slots=True)
class OutgoingEvent:
    """One event to publish: `message` is the topic's protobuf type, `id` its identity within this source.

    A `tombstone` is published with an empty value, which deletes the key from a compacted topic; its message
    only tells the type, and it has no sequence number.
    """

    topic: str
    key: str
    id: str
    tenant: str
    message: Message
    tombstone: bool = False


class RejectedEvent(Exception):  # noqa: N818  # a verdict on the event, not on the program
    """Raised by a handler for an event that can never succeed: it goes to the dead-letter topic.

    `stage` says where it failed (decode, validate, apply). Any other exception is retried with back-off,
    and the offset stays uncommitted.
    """

    def __init__(self, message: str, *, stage: str) -> None:
        super().__init__(message)
        self.stage = stage


@dataclass(frozen=True, slots=True)
class DeadLetterLimits:
    """How many dead letters are the events' fault; beyond that it is the consumer's, which stops.

    Over `max_ratio` of the last `window` records, once `min_records` were seen, or over `max_in_a_row`.
    """

    max_ratio: float = 0.1
    window: int = 1000
    min_records: int = 100
    max_in_a_row: int = 50


Handler = Callable[[ReceivedEvent], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a service consumes: at least once, in order per key, offset committed after `handle` returned.

    `concurrency` events of different keys may be handled at once. `from_beginning` is where a new group starts.
    Where dead letters are kept, too many of them (`dead_letter_limits`) stop the subscription until a restart.
    """

    topic: str
    group: str
    handle: Handler
    concurrency: int = 8
    max_batch: int = 500
    from_beginning: bool = True
    dead_letter: bool = True
    dead_letter_limits: DeadLetterLimits = DeadLetterLimits()


class EventPublisher(Protocol):
    """Publishes; returns once the event is safe: the bus has acknowledged it, or has it on disk and will send it."""

    async def publish(self, event: OutgoingEvent) -> None:
        """Publish and wait until the event is safe.

        Raises:
            BackendUnavailable: not safe in time (reason EVENT_NOT_RECORDED); it may still arrive.
        """
        ...


class EventBus(EventPublisher, Protocol):
    """A connection to the bus; opened by `servicekit.adapters.registry.open_event_bus`."""

    def subscribe(self, subscription: Subscription) -> None:
        """Declare a subscription; consuming begins with `start_consuming`."""
        ...

    async def start_consuming(self) -> None:
        """Begin to fetch for all declared subscriptions."""
        ...

    async def stop_consuming(self) -> None:
        """Stop fetching, finish what is in hand, commit."""
        ...

    async def ping(self) -> None:
        """Return if events can be published now, else raise BackendUnavailable."""
        ...

    async def check_consuming(self) -> None:
        """Return if no subscription was stopped by its dead letters, else raise NotReady."""
        ...
