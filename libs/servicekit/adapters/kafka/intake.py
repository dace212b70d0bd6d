"""One subscription's way from fetched batch to committed offset.

Called by FastStream with each batch (see `consumers.py`) and by aiokafka around each rebalance.

FastStream's own acknowledgement commits every position, handled or not; therefore offsets are committed here,
explicitly, those of what is done, and only for partitions that are still this consumer's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from servicekit.events import metrics
from servicekit.events.dead_letter_cap import DeadLetterCap
from servicekit.events.dead_letters import DeadLetter, Record, record_time
from servicekit.events.lanes import Backoff, Lanes, Partition
from servicekit.ports.clock import Clock
from servicekit.ports.event_bus import Subscription

log = structlog.get_logger()

# A commit that fails is covered by the next one; a stop must not wait long for a broker that is gone.
_COMMIT_S = 3.0
# What is in a handler may end within this time, before its partitions go to another consumer.
_REVOKE_S = 10.0

# aiokafka's ConsumerRecord, which ships no types.
Fetched = Any


class Intake(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka's base has no types
    """`consumer` gives the aiokafka consumer in use, or None before the start and after the stop."""

    def __init__(
        self,
        subscription: Subscription,
        *,
        consumer: Callable[[], AIOKafkaConsumer | None],
        send_dead_letter: Callable[[DeadLetter], Awaitable[None]],
        backoff: Backoff,
        cap: DeadLetterCap,
        clock: Clock,
    ) -> None:
        self._subscription = subscription
        self._consumer = consumer
        self._lanes = Lanes(
            subscription, send_dead_letter=send_dead_letter, backoff=backoff, owns=self._owns, cap=cap, clock=clock
        )
        self._idle = asyncio.Event()
        self._idle.set()
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._stopping = False

    async def handle(self, batch: Sequence[Fetched]) -> None:
        """Handle a batch and commit what is done; never raises, for FastStream would skip the batch."""
        if self._lanes.paused:
            # Fetched under the assignment that is being given up: the next one starts from the commit.
            await self._resumed.wait()
            return
        self._idle.clear()
        try:
            records = [_to_record(one) for one in batch]
            positions = await self._lanes.process(records)
            await self._commit(_progress(records, positions))
            self._hold_if_stopped()
        except Exception:
            log.exception("kafka.batch_failed", topic=self._subscription.topic, group=self._subscription.group)
        finally:
            self._idle.set()

    def stop(self) -> None:
        """Begin nothing more; `handle` returns when what is in hand is done and committed."""
        self._stopping = True
        self._lanes.pause()
        self._resumed.set()

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Finish and commit what is in hand before another consumer takes over; called by aiokafka."""
        if not revoked:
            return
        self._lanes.pause()
        self._resumed.clear()
        try:
            async with asyncio.timeout(_REVOKE_S):
                await self._idle.wait()
        except TimeoutError:
            log.warning("kafka.revoked_in_hand", topic=self._subscription.topic, within_s=_REVOKE_S)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Take up work on what is now ours; called by aiokafka."""
        log.info("kafka.assigned", topic=self._subscription.topic, partitions=len(assigned))
        if not self._stopping:
            self._lanes.resume()
        self._resumed.set()

    def _hold_if_stopped(self) -> None:
        """Fetch no more than what comes with the next assignment, of which nothing is handled either."""
        consumer = self._consumer()
        if self._lanes.stopped and consumer is not None:
            consumer.pause(*consumer.assignment())

    def _owns(self, partition: Partition) -> bool:
        consumer = self._consumer()
        return consumer is not None and TopicPartition(*partition) in consumer.assignment()

    async def _commit(self, positions: Mapping[Partition, int]) -> None:
        consumer = self._consumer()
        offsets = {TopicPartition(*one): offset for one, offset in positions.items() if self._owns(one)}
        if consumer is None or not offsets:
            return
        try:
            async with asyncio.timeout(_COMMIT_S):
                await consumer.commit(offsets)
        except (KafkaError, TimeoutError) as exc:
            # The next commit covers it; until then a restart repeats what was done.
            log.warning("kafka.commit_failed", topic=self._subscription.topic, error=repr(exc))
        self._measure_lag(consumer, offsets)

    def _measure_lag(self, consumer: AIOKafkaConsumer, offsets: Mapping[TopicPartition, int]) -> None:
        behind = 0
        for partition in consumer.assignment():
            newest: Any = consumer.highwater(partition)
            if newest is not None and partition in offsets:
                behind += max(0, newest - offsets[partition])
        metrics.LAG.labels(self._subscription.topic, self._subscription.group).set(behind)


def _to_record(fetched: Fetched) -> Record:
    return Record(
        topic=fetched.topic,
        partition=fetched.partition,
        offset=fetched.offset,
        key=fetched.key,
        value=fetched.value,
        headers=tuple(fetched.headers),
        time=record_time(fetched.timestamp),
    )


def _progress(records: Iterable[Record], positions: Mapping[Partition, int]) -> dict[Partition, int]:
    """Positions of the partitions in which something was done."""
    first: dict[Partition, int] = {}
    for record in records:
        partition = (record.topic, record.partition)
        first[partition] = min(record.offset, first.get(partition, record.offset))
    return {partition: offset for partition, offset in positions.items() if offset > first[partition]}
