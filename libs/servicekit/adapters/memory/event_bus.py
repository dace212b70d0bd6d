"""An event bus in this process's memory, with the semantics of Kafka's. For unit tests; chosen by `memory://`.

Ordered per key, at least once, with dead letters, producer sequences and reports; held to Kafka's own
conformance suite.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from zlib import crc32

from servicekit.domain.envelope import Envelope
from servicekit.domain.identity import ServiceIdentity
from servicekit.errors import BackendUnavailable, NotReady
from servicekit.events import metrics
from servicekit.events.codec import encode_headers
from servicekit.events.dead_letters import DeadLetter, Record
from servicekit.events.lanes import Backoff, Lanes, Partition
from servicekit.events.ledger import SequenceLedger
from servicekit.events.reports import build_report
from servicekit.events.topics import replay_topic
from servicekit.ports.clock import Clock, SystemClock
from servicekit.ports.event_bus import OutgoingEvent, Subscription
from servicekit.telemetry.tracing import current_traceparent

PARTITIONS = 4
_TEST_IDENTITY = ServiceIdentity(name="test", producer="producer-1", start_time=datetime(2026, 1, 1, tzinfo=UTC))


@dataclass(slots=True)
class _Reader:
    subscription: Subscription
    lanes: Lanes
    positions: dict[Partition, int] = field(default_factory=lambda: defaultdict(int))
    busy: bool = False


class MemoryEventBus:
    """`published` holds every event in the order of publishing, `dead_letters` what was rejected.

    `fail_next` makes that many publishes raise as if the broker were away.
    """

    def __init__(
        self,
        *,
        identity: ServiceIdentity = _TEST_IDENTITY,
        clock: Clock | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.published: list[OutgoingEvent] = []
        self.dead_letters: list[DeadLetter] = []
        self.fail_next = 0
        self.ledger = SequenceLedger()
        self._identity = identity
        self._clock = clock or SystemClock()
        self._backoff = backoff or Backoff(initial_s=0.01, max_s=0.1)
        self._logs: dict[str, list[list[Record]]] = defaultdict(lambda: [[] for _ in range(PARTITIONS)])
        self._readers: list[_Reader] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Condition()
        self._stopping = False

    async def publish(self, event: OutgoingEvent) -> None:
        """Append to the topic; it is acknowledged at once."""
        if self.fail_next:
            self.fail_next -= 1
            raise BackendUnavailable(f"{event.topic}: told to fail", reason="EVENT_NOT_RECORDED")
        with metrics.PUBLISH_SECONDS.labels(event.topic).time():
            partition = crc32((event.key or event.id).encode()) % PARTITIONS
            # A tombstone has no number: no table holds it, and no completeness count includes it.
            sequence = 0 if event.tombstone else self.ledger.assign(event.topic, partition)
            envelope = Envelope(
                id=event.id,
                source=self._identity.name,
                type=event.message.DESCRIPTOR.full_name,
                tenant=event.tenant,
                producer="" if event.tombstone else self._identity.producer,
                sequence=sequence,
                traceparent=current_traceparent(),
            )
            await self.append(
                event.topic,
                partition,
                key=event.key.encode() or None,
                value=None if event.tombstone else event.message.SerializeToString(deterministic=True),
                headers=encode_headers(envelope),
            )
            if sequence:
                self.ledger.acknowledge(event.topic, partition, sequence)
        self.published.append(event)
        metrics.PUBLISHED.labels(event.topic).inc()
        metrics.ACKNOWLEDGED.labels(event.topic).inc()

    async def append(
        self,
        topic: str,
        partition: int = 0,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: tuple[tuple[str, bytes | None], ...] = (),
    ) -> None:
        """Put a raw record on a topic, as a foreign producer would."""
        async with self._changed:
            stored = self._logs[topic][partition]
            stored.append(
                Record(
                    topic=topic,
                    partition=partition,
                    offset=len(stored),
                    key=key,
                    value=value,
                    headers=headers,
                    time=self._clock.now(),
                )
            )
            self._changed.notify_all()

    def records(self, topic: str) -> list[Record]:
        """All records of a topic, by partition and offset."""
        return [record for partition in self._logs[topic] for record in partition]

    def subscribe(self, subscription: Subscription) -> None:
        """Declare a subscription; a group that is new to a topic starts where `from_beginning` says."""
        lanes = Lanes(subscription, send_dead_letter=self._keep_dead_letter, backoff=self._backoff)
        reader = _Reader(subscription, lanes)
        if not subscription.from_beginning:
            topic = subscription.topic
            reader.positions.update({(topic, number): len(log) for number, log in enumerate(self._logs[topic])})
        self._readers.append(reader)

    async def start_consuming(self) -> None:
        """Begin to deliver to all declared subscriptions."""
        self._stopping = False
        for reader in self._readers:
            reader.lanes.resume()
        self._tasks = [asyncio.create_task(self._consume(reader)) for reader in self._readers]

    async def stop_consuming(self) -> None:
        """Finish what is in hand; positions are kept, so that `start_consuming` goes on from there."""
        for reader in self._readers:
            reader.lanes.pause()
        async with self._changed:
            self._stopping = True
            self._changed.notify_all()
        await asyncio.gather(*self._tasks)
        self._tasks = []

    async def drain(self, *, timeout_s: float = 5.0) -> None:
        """Return when every subscription has handled everything there is."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(lambda: not any(r.busy or self._ahead(r) for r in self._readers))

    async def report(self, *, final: bool = False) -> None:
        """Publish how far this producer's events are safe."""
        event = build_report(self._identity, self.ledger, now=self._clock.now(), final=final)
        if event is not None:
            await self.publish(event)

    async def ping(self) -> None:
        """Memory always answers."""

    async def check_consuming(self) -> None:
        """Raise NotReady while dead letters have stopped a subscription."""
        stopped = [reader.subscription.topic for reader in self._readers if reader.lanes.stopped]
        if stopped:
            raise NotReady(f"dead letters stopped the consumers of {', '.join(stopped)}", reason="DEAD_LETTER_CAP")

    async def _consume(self, reader: _Reader) -> None:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._stopping or bool(self._ahead(reader)))
                if self._stopping:
                    return
                batch = self._ahead(reader)[: reader.subscription.max_batch]
                reader.busy = True
            positions = await reader.lanes.process(batch)
            async with self._changed:
                reader.positions.update(positions)
                reader.busy = False
                self._changed.notify_all()

    def _ahead(self, reader: _Reader) -> list[Record]:
        """What is to be handled, of the topic and then of the group's replays; nothing once it is stopped."""
        topic, group = reader.subscription.topic, reader.subscription.group
        if reader.lanes.stopped:
            return []
        return [
            record
            for name in (topic, replay_topic(topic, group))
            for number, stored in enumerate(self._logs[name])
            for record in stored[reader.positions[name, number] :]
        ]

    async def _keep_dead_letter(self, letter: DeadLetter) -> None:
        self.dead_letters.append(letter)
        await self.append(
            letter.topic, letter.record.partition, key=letter.key, value=letter.value, headers=letter.headers
        )


@asynccontextmanager
async def open_event_bus(
    url: str = "memory://", *, identity: ServiceIdentity, clock: Clock, spool_dir: Path | None = None
) -> AsyncIterator[MemoryEventBus]:
    """Open an empty bus; its content ends with it."""
    del url, spool_dir  # memory:// says all there is, and is never away
    bus = MemoryEventBus(identity=identity, clock=clock)
    try:
        yield bus
    finally:
        await bus.stop_consuming()
