"""Publishes events: chooses the partition, numbers the record, waits for the broker's acknowledgement.

Part of `KafkaEventBus`; see `servicekit.events.ledger` for what the numbers promise.
"""

import asyncio
from collections import defaultdict
from dataclasses import replace
from functools import partial

from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.structs import RecordMetadata

from servicekit.adapters.kafka.session import Headers, ProducerSession, SessionBroken, SessionKeeper
from servicekit.domain.envelope import Envelope
from servicekit.domain.identity import ServiceIdentity
from servicekit.errors import BackendUnavailable, InvalidRequest
from servicekit.events import metrics
from servicekit.events.codec import encode_headers
from servicekit.events.dead_letters import DeadLetter
from servicekit.events.ledger import SequenceLedger
from servicekit.events.topics import MAX_EVENT_BYTES, TOPICS
from servicekit.ports.event_bus import OutgoingEvent
from servicekit.telemetry.tracing import current_traceparent

EVENT_NOT_RECORDED = "EVENT_NOT_RECORDED"


class KafkaPublisher:
    """`timeout_s` bounds every publish, reconnecting included."""

    def __init__(
        self, sessions: SessionKeeper, ledger: SequenceLedger, *, identity: ServiceIdentity, timeout_s: float
    ) -> None:
        self._sessions = sessions
        self._ledger = ledger
        self._identity = identity
        self._timeout_s = timeout_s
        # Java's murmur2 over the key, so that every client with Kafka's default agrees on the partition.
        self._choose_partition = DefaultPartitioner()
        self._send_order: dict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def publish(self, event: OutgoingEvent) -> None:
        """Publish and wait for the acknowledgement.

        Raises:
            BackendUnavailable: not acknowledged in time (EVENT_NOT_RECORDED); it may still arrive.
            InvalidRequest: larger than the topic takes (EVENT_TOO_LARGE).
        """
        if event.tombstone:
            headers = encode_headers(replace(self._envelope(event, 0), producer=""))
            return await self._send_unnumbered(event.topic, key=event.key.encode(), value=None, headers=headers)
        value = event.message.SerializeToString(deterministic=True)
        _check_size(event, value)
        metrics.PUBLISHED.labels(event.topic).inc()
        with metrics.PUBLISH_SECONDS.labels(event.topic).time():
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._publish_through_any(event, value)
            except TimeoutError as exc:
                raise BackendUnavailable(
                    f"Kafka did not acknowledge the event on {event.topic} within {self._timeout_s:g} s; "
                    "it may still arrive: publish it again under the same id",
                    reason=EVENT_NOT_RECORDED,
                ) from exc
            except MessageSizeTooLargeError as exc:
                raise _too_large(event, len(value), limit=MAX_EVENT_BYTES) from exc
            except KafkaError as exc:
                raise BackendUnavailable(
                    f"Kafka refuses the event on {event.topic}: {exc}", reason=EVENT_NOT_RECORDED
                ) from exc

    async def bury(self, letter: DeadLetter) -> None:
        """Put a dead letter on its topic, unnumbered: its headers are those of its first producer.

        Raises:
            BackendUnavailable: not acknowledged in time.
        """
        await self._send_unnumbered(letter.topic, key=letter.key, value=letter.value, headers=letter.headers)

    async def _send_unnumbered(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Send what no completeness count includes: dead letters, and tombstones, which no table holds."""
        try:
            async with asyncio.timeout(self._timeout_s):
                session = await self._sessions.live()
                partition = self._partition(await session.partitions_for(topic), key)
                acknowledged = await session.send(topic, partition, key=key, value=value, headers=headers)
                await acknowledged
        except (TimeoutError, KafkaError, SessionBroken) as exc:
            raise BackendUnavailable(
                f"the unnumbered record was not recorded on {topic}: {exc!r}", reason=EVENT_NOT_RECORDED
            ) from exc

    async def _publish_through_any(self, event: OutgoingEvent, value: bytes) -> None:
        """Through the session that lives, or the next one: a broken session abandons what it had."""
        while True:
            session = await self._sessions.live()
            try:
                return await self._publish_through(session, event, value)
            except SessionBroken:
                continue

    async def _publish_through(self, session: ProducerSession, event: OutgoingEvent, value: bytes) -> None:
        topic, key = event.topic, event.key.encode() or None
        partition = self._partition(await session.partitions_for(topic), key or event.id.encode())
        async with self._send_order[topic, partition]:
            if session.broken.is_set():
                raise SessionBroken("it broke while this event waited for its turn")
            sequence = self._ledger.assign(topic, partition)
            try:
                headers = encode_headers(self._envelope(event, sequence))
                outcome = await session.send(topic, partition, key=key, value=value, headers=headers)
            except BaseException:
                self._ledger.give_back(topic, partition, sequence)
                raise
        outcome.add_done_callback(partial(self._settle, topic, partition, sequence))
        try:
            await asyncio.shield(outcome)
        except asyncio.CancelledError:
            self._ledger.abandon(topic, partition, sequence)
            raise

    def _partition(self, partitions: list[int], key: bytes | None) -> int:
        chosen: int = self._choose_partition(key, partitions, partitions)
        return chosen

    def _settle(self, topic: str, partition: int, sequence: int, outcome: asyncio.Future[RecordMetadata]) -> None:
        if outcome.exception() is None:
            self._ledger.acknowledge(topic, partition, sequence)
            metrics.ACKNOWLEDGED.labels(topic).inc()
        else:
            self._ledger.abandon(topic, partition, sequence)

    def _envelope(self, event: OutgoingEvent, sequence: int) -> Envelope:
        return Envelope(
            id=event.id,
            source=self._identity.name,
            type=event.message.DESCRIPTOR.full_name,
            tenant=event.tenant,
            producer=self._identity.producer,
            sequence=sequence,
            traceparent=current_traceparent(),
        )


def _check_size(event: OutgoingEvent, value: bytes) -> None:
    spec = TOPICS.get(event.topic)
    limit = spec.max_bytes if spec else MAX_EVENT_BYTES
    if len(value) > limit:
        raise _too_large(event, len(value), limit=limit)


def _too_large(event: OutgoingEvent, size: int, *, limit: int) -> InvalidRequest:
    return InvalidRequest(
        f"an event on {event.topic} must have at most {limit} bytes, got {size}", reason="EVENT_TOO_LARGE"
    )
