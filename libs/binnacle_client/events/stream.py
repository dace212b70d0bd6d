"""Opens a topic for a consumer outside of Binnacle: typed events, resumable, acknowledged one by one.

The entry of `binnacle_client.events`; fetching and committing are in `reader.py`.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, Self

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from google.protobuf.message import Message

from binnacle_client.events.event import Delivery, Event, M, Place, Rejected
from binnacle_client.events.reader import Limits, Reader
from binnacle_client.events.starting import Start, StartAt, check_start
from servicekit.errors import BackendUnavailable, InvalidRequest
from servicekit.events.codec import decode
from servicekit.events.dead_letters import parse_record
from servicekit.events.topics import MAX_EVENT_BYTES, TOPICS, TopicSpec
from servicekit.ports.clock import Clock, SystemClock
from servicekit.ports.event_bus import RejectedEvent

log = structlog.get_logger()

_CONNECT_WITHIN_S = 20.0
_STOP_WITHIN_S = 5.0
_DEFAULTS: Mapping[str, Any] = {
    "max_partition_fetch_bytes": MAX_EVENT_BYTES,
    "fetch_max_wait_ms": 100,  # the embedded broker lets an empty fetch wait the whole time
    "heartbeat_interval_ms": 1_000,  # with which a member learns of a rebalance
    "max_poll_interval_ms": 3_600_000,  # a handler may take its time: the heartbeat tells that the process lives
    "metadata_max_age_ms": 15_000,  # partitions that were added are noticed after this long
}
_CLOCK = SystemClock()
_LIMITS = Limits()
_NO_SETTINGS: Mapping[str, Any] = {}


class EventStream(Generic[M]):
    """Iterate over it in one task; acknowledge from any. Opened by `open_events`."""

    def __init__(self, reader: Reader, *, message_type: type[M]) -> None:
        self._reader = reader
        self._message_type = message_type

    def __aiter__(self) -> Self:
        """The stream itself."""
        return self

    async def __anext__(self) -> Event[M] | Rejected:
        """The next event, or a record that is none; waits for one, so bound it with `asyncio.timeout` if need be.

        Raises:
            NotReady: nothing was acknowledged for too long, or the topic cannot be read from the start asked for.
            BackendUnavailable: no broker answers.
        """
        delivery = await self._reader.next()
        record = delivery.record
        place = Place(record.topic, record.partition, record.offset)
        try:
            received = parse_record(record)
            payload = decode(received, self._message_type)
        except RejectedEvent as rejection:
            return Rejected(rejection.stage, str(rejection), record, place, delivery, self._settle)
        return Event(
            payload=payload,
            envelope=received.envelope,
            place=place,
            key=received.key,
            time=received.time,
            tombstone=record.value is None,
            delivery=delivery,
            settle=self._settle,
        )

    async def ack(self, *events: Event[M] | Rejected) -> bool:
        """These are done. Returns once Kafka has what may be committed, in one request for all of them.

        The group's offset moves only up to the first event of a partition that is not acknowledged: what is
        acknowledged beyond it is held back, and handed out again if this process dies before. False: some of the
        partitions went to another member meanwhile, so that their events come again, here or there. Without a group
        nothing is committed.

        Raises:
            BackendUnavailable, BackendTimeout: not committed; the next acknowledgement commits it as well.
        """
        return await self._reader.settle([event.delivery for event in events])

    async def _settle(self, delivery: Delivery) -> bool:
        return await self._reader.settle([delivery])


@asynccontextmanager
async def open_events(
    message_type: type[M],
    *,
    servers: str | Sequence[str],
    group: str | None = None,
    start: Start = StartAt.EARLIEST,
    limits: Limits = _LIMITS,
    client_settings: Mapping[str, Any] = _NO_SETTINGS,
    clock: Clock = _CLOCK,
) -> AsyncIterator[EventStream[M]]:
    """The events of the topic that carries `message_type` (`message_class(topic)` gives it by the topic's name).

    Args:
        message_type: such as `InteractionCompleted`; there is one topic for each.
        servers: Kafka's bootstrap servers, `host:port`.
        group: goes on where the group stopped, and shares the partitions with its other members. None: reads all
            partitions from `start`, commits nothing, disturbs nobody.
        start: the oldest record, only new ones, or a time (aware): where the group has not committed anything yet.
        limits: how much may wait and for how long.
        client_settings: further settings of `AIOKafkaConsumer`, such as `security_protocol` and `ssl_context`.
        clock: for tests.

    Raises:
        InvalidRequest: no topic carries that message, or `start` has no zone.
        BackendUnavailable: Kafka cannot be reached.
        NotReady: the topic does not exist, or `start` is a time and this Kafka cannot look it up.
    """
    spec = _spec_of(message_type)
    check_start(start)
    consumer = _new_consumer(servers, group=group, settings=client_settings)
    reader = Reader(consumer, spec=spec, group=group, start=start, limits=limits, clock=clock)
    try:
        await _begin(consumer, reader, servers=servers)
        yield EventStream(reader, message_type=message_type)
        await reader.close()
    finally:
        await _stop(consumer)


def _spec_of(message_type: type[Message]) -> TopicSpec:
    name = message_type.DESCRIPTOR.full_name
    for spec in TOPICS.values():
        if spec.message == name:
            return spec
    raise InvalidRequest(
        f"no topic carries {name}; there are {', '.join(sorted(spec.message for spec in TOPICS.values()))}",
        field="message_type",
    )


def _new_consumer(servers: str | Sequence[str], *, group: str | None, settings: Mapping[str, Any]) -> AIOKafkaConsumer:
    ours = {
        "bootstrap_servers": servers,
        "group_id": group,
        "enable_auto_commit": False,
        # Where the committed offset has expired meanwhile.
        "auto_offset_reset": "earliest",
    }
    if taken := sorted(ours.keys() & settings.keys()):
        raise InvalidRequest(f"client_settings must leave {', '.join(taken)} to open_events", field="client_settings")
    return AIOKafkaConsumer(**{**_DEFAULTS, **settings, **ours})


async def _begin(consumer: AIOKafkaConsumer, reader: Reader, *, servers: str | Sequence[str]) -> None:
    try:
        async with asyncio.timeout(_CONNECT_WITHIN_S):
            await consumer.start()
            await reader.begin()
    except (KafkaError, TimeoutError, OSError) as exc:
        raise BackendUnavailable(f"Kafka at {servers} cannot be reached: {exc!r}", reason="KAFKA_UNAVAILABLE") from exc


async def _stop(consumer: AIOKafkaConsumer) -> None:
    """Leave the group and disconnect; a client that has lost its broker must not keep the program from ending.

    In a task of its own: such a client lets the cancellation of its own tasks escape from `stop`.
    """
    stopping = asyncio.create_task(consumer.stop())
    try:
        _done, left = await asyncio.wait({stopping}, timeout=_STOP_WITHIN_S)
    finally:
        stopping.cancel()
    if left or stopping.cancelled() or stopping.exception() is not None:
        log.warning("events.client_left_behind")
