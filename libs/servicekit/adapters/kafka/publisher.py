"""Publishes events: makes records of them and sees them acknowledged, or spooled.

Part of `KafkaEventBus`; `delivery.py` does the sending, `servicekit.events.ledger` says what the numbers promise.
"""

import asyncio
from dataclasses import replace

from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from servicekit.adapters.kafka.delivery import Delivery, Draft, choose_partition
from servicekit.adapters.kafka.session import Headers, SessionBroken, SessionKeeper
from servicekit.domain.envelope import Envelope
from servicekit.domain.identity import ServiceIdentity
from servicekit.errors import BackendUnavailable, InvalidRequest
from servicekit.events import metrics
from servicekit.events.codec import encode_headers
from servicekit.events.dead_letters import DeadLetter
from servicekit.events.topics import MAX_EVENT_BYTES, TOPICS
from servicekit.ports.clock import Clock
from servicekit.ports.event_bus import OutgoingEvent
from servicekit.telemetry.tracing import current_traceparent

EVENT_NOT_RECORDED = "EVENT_NOT_RECORDED"
_MS = 1000


class KafkaPublisher:
    """`timeout_s` bounds every publish, reconnecting included."""

    def __init__(
        self,
        sessions: SessionKeeper,
        delivery: Delivery,
        *,
        identity: ServiceIdentity,
        clock: Clock,
        timeout_s: float,
    ) -> None:
        self._sessions = sessions
        self._delivery = delivery
        self._identity = identity
        self._clock = clock
        self._timeout_s = timeout_s

    async def publish(self, event: OutgoingEvent) -> None:
        """Publish and wait until the event is safe: acknowledged, or on disk.

        Raises:
            BackendUnavailable: neither in time (EVENT_NOT_RECORDED); it may still arrive.
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
                    await self._delivery.see_safe(self._draft(event, value))
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
                partition = choose_partition(key, len(await session.partitions_for(topic)))
                acknowledged = await session.send(topic, partition, key=key, value=value, headers=headers)
                await acknowledged
        except (TimeoutError, KafkaError, SessionBroken) as exc:
            raise BackendUnavailable(
                f"the unnumbered record was not recorded on {topic}: {exc!r}", reason=EVENT_NOT_RECORDED
            ) from exc

    def _draft(self, event: OutgoingEvent, value: bytes) -> Draft:
        return Draft(
            topic=event.topic,
            key=event.key.encode() or None,
            spread=event.id.encode(),
            value=value,
            time_ms=int(self._clock.now().timestamp() * _MS),
            headers=lambda sequence: encode_headers(self._envelope(event, sequence)),
        )

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
