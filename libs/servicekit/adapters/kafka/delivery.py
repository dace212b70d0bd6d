"""Gets a record safe: numbered and handed to Kafka, or, where Kafka is away or slow, to the spool.

Used by `publisher.py`, which makes the records; `draining.py` takes what is spooled to Kafka.

Without a spool a record is safe when Kafka acknowledges it. With one, a record that is not acknowledged within
`spool_after_s` goes to disk under the partition and sequence that it has, and so does at once every record of a
partition that has spooled ones, and every record while no session is usable.

Order per partition holds because each step keeps it: sequences are handed over under the partition's lock; what goes
to the spool is always everything in flight of the partition, oldest first, and then what is new; and nothing is
handed over while the spool holds something of the partition. (A disk that refuses records while Kafka is away, and
takes later ones, is the exception: what it refused gets new sequences.)

At the spool's bound, and while its disk fails, a record waits for Kafka as it would without a spool.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from aiokafka.errors import KafkaError
from aiokafka.partitioner import DefaultPartitioner

from servicekit.adapters.kafka.sending import Copies, Copy, Partition, Sending
from servicekit.adapters.kafka.session import ProducerSession, SessionBroken, SessionKeeper
from servicekit.adapters.kafka.spool import Spool
from servicekit.adapters.kafka.spool_file import Headers, SpooledRecord
from servicekit.events import metrics
from servicekit.events.ledger import SequenceLedger
from servicekit.events.topics import TOPICS

# Where neither Kafka nor the spool takes a record, both are looked at again this often.
_LOOK_AGAIN_S = 0.05
_HEADERS_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True)
class Draft:
    """An event as bytes; `headers` makes those of a sequence, `spread` chooses the partition where there is no key."""

    topic: str
    key: bytes | None
    spread: bytes
    value: bytes
    time_ms: int
    headers: Callable[[int], Headers]


class Delivery:
    """The way of every numbered record of one producer; `copies` is read by the drain."""

    def __init__(
        self,
        sessions: SessionKeeper,
        ledger: SequenceLedger,
        *,
        producer: str,
        spool: Spool | None,
        spool_after_s: float,
    ) -> None:
        self.copies = Copies()
        self._sessions = sessions
        self._ledger = ledger
        self._producer = producer
        self._spool = spool
        self._spool_after_s = spool_after_s
        self._partitions: dict[tuple[str, int], Partition] = {}

    async def see_safe(self, draft: Draft) -> None:
        """Return once the record is acknowledged or on disk; tries without bound.

        Raises:
            KafkaError: Kafka refuses this record.
        """
        while True:
            spool_at_s = None if self._spool is None else asyncio.get_running_loop().time() + self._spool_after_s
            try:
                partition, sending = await self._begin(draft, spool_at_s)
                return await self._until_safe(partition, sending, spool_at_s)
            except SessionBroken:
                continue  # it is abandoned; the next attempt has a sequence of its own

    async def _begin(self, draft: Draft, spool_at_s: float | None) -> tuple[Partition, Sending]:
        """Number the record and give it to a session or the spool, whichever may take it now."""
        refused = False
        while True:
            session = await self._sessions.live() if self._spool is None else self._sessions.usable()
            partition = self._partition(draft, await self._count_partitions(draft.topic, session, spool_at_s))
            async with partition.order:
                sending = await self._give(partition, draft, session, spool_at_s)
            if sending is not None:
                return partition, sending
            assert self._spool is not None  # without one it is given, or raises
            if not refused:
                refused = True
                self._spool.refuse()
            await self._look_again(partition, self._spool)

    async def _count_partitions(self, topic: str, session: ProducerSession | None, spool_at_s: float | None) -> int:
        """As Kafka tells; while it does not, as it told last, or as the topic is registered."""
        known = 0 if session is None else session.known_partitions(topic)
        if self._spool is None:
            assert session is not None
            return known or len(await session.partitions_for(topic))
        if session is not None and not known:
            try:
                async with asyncio.timeout_at(spool_at_s):
                    known = len(await session.partitions_for(topic))
            except (TimeoutError, KafkaError):
                session.doubted.set()
        if known:
            self._spool.remember_partitions(topic, known)
            return known
        return self._spool.partitions(topic) or (TOPICS[topic].partitions if topic in TOPICS else 1)

    def _partition(self, draft: Draft, count: int) -> Partition:
        number = choose_partition(draft.key or draft.spread, count)
        lane = (draft.topic, number)
        if lane not in self._partitions:
            self._partitions[lane] = Partition(lane)
        return self._partitions[lane]

    async def _give(
        self, partition: Partition, draft: Draft, session: ProducerSession | None, spool_at_s: float | None
    ) -> Sending | None:
        """Hand over or spool, under the partition's lock; None if neither may be done now."""
        if self._spool is None:
            assert session is not None
            if session.broken.is_set():
                raise SessionBroken("it broke while this record waited for its turn")
            return await self._hand_over(partition, draft, session, None)
        if session is not None and not session.doubted.is_set() and not self._spool.holds(partition.lane):
            return await self._hand_over(partition, draft, session, spool_at_s)
        if not self._spool.takes(partition.in_flight_bytes() + len(draft.value) + _HEADERS_BYTES):
            return None
        sending = Sending(self._number(partition, draft))
        self._spool_all(partition, sending)
        return sending

    async def _hand_over(
        self, partition: Partition, draft: Draft, session: ProducerSession, spool_at_s: float | None
    ) -> Sending | None:
        sending = Sending(self._number(partition, draft))
        record = sending.record
        try:
            async with asyncio.timeout_at(spool_at_s):
                sending.copy = await session.send(
                    record.topic,
                    record.partition,
                    key=record.key,
                    value=record.value,
                    headers=record.headers,
                    time_ms=record.time_ms,
                )
        except BaseException as exc:
            # It was not handed over, and its sequence is the newest.
            if isinstance(exc, TimeoutError):
                session.doubted.set()
                if self._spool_all(partition, sending):
                    return sending
            self._ledger.give_back(record.topic, record.partition, record.sequence)
            if isinstance(exc, TimeoutError):
                return None
            raise
        spooled_meanwhile = self._spool is not None and self._spool.holds(partition.lane)
        if not (spooled_meanwhile and self._spool_all(partition, sending)):
            partition.in_flight[record.sequence] = sending
        sending.copy.add_done_callback(partial(self._settle, partition, sending))
        return sending

    def _number(self, partition: Partition, draft: Draft) -> SpooledRecord:
        topic, number = partition.lane
        sequence = self._ledger.assign(topic, number)
        return SpooledRecord(
            topic, number, self._producer, sequence, draft.time_ms, draft.key, draft.headers(sequence), draft.value
        )

    async def _until_safe(self, partition: Partition, sending: Sending, spool_at_s: float | None) -> None:
        overdue = None
        if spool_at_s is not None and not sending.spooling:
            overdue = asyncio.get_running_loop().call_at(spool_at_s, self._spool_overdue, partition, sending)
        try:
            await sending.safe
        except asyncio.CancelledError:
            if not sending.spooling:
                record = sending.record
                partition.in_flight.pop(record.sequence, None)
                self._ledger.abandon(record.topic, record.partition, record.sequence)
            raise
        finally:
            if overdue is not None:
                overdue.cancel()

    def _spool_overdue(self, partition: Partition, sending: Sending) -> None:
        if self._spool is None or sending.spooling or sending.safe.done():
            return
        self._sessions.doubt()
        if not self._spool_all(partition):
            self._spool.refuse()

    def _spool_all(self, partition: Partition, new: Sending | None = None) -> bool:
        """Spool what is in flight of a partition, and then what is new; False if there is no room for all of it."""
        group = [*partition.in_flight.values(), *([] if new is None else [new])]
        if self._spool is None or not group or not self._spool.takes(sum(one.record.size_bytes for one in group)):
            return False
        partition.in_flight.clear()
        positions, outcome = self._spool.append([one.record for one in group])
        for position, one in zip(positions, group, strict=True):
            one.spooling = True
            if one.copy is not None:
                self.copies.keep(position, one.copy)
        outcome.add_done_callback(partial(self._conclude_spooling, positions, group))
        return True

    def _conclude_spooling(self, positions: range, group: Sequence[Sending], outcome: asyncio.Future[None]) -> None:
        durable = not outcome.cancelled() and outcome.exception() is None
        for position, one in zip(positions, group, strict=True):
            record = one.record
            if durable:
                self._ledger.spool(record.topic, record.partition, record.sequence)
                one.succeed()
                continue
            one.spooling = False
            if self.copies.hopeful(position) is None:
                self._ledger.abandon(record.topic, record.partition, record.sequence)
                one.fail(SessionBroken("neither a session nor the disk took it"))
            self.copies.forget(position)

    def _settle(self, partition: Partition, sending: Sending, copy: Copy) -> None:
        """What became of a record that was handed over."""
        record, error = sending.record, copy.exception()
        if error is None:
            partition.in_flight.pop(record.sequence, None)
            self._ledger.acknowledge(record.topic, record.partition, record.sequence)
            metrics.ACKNOWLEDGED.labels(record.topic).inc()
            sending.succeed()
            return
        if sending.spooling:
            return  # the drain hands it over again
        waits = record.sequence in partition.in_flight
        if waits and isinstance(error, SessionBroken) and self._spool_all(partition):
            return
        partition.in_flight.pop(record.sequence, None)
        self._ledger.abandon(record.topic, record.partition, record.sequence)
        sending.fail(error)

    @staticmethod
    async def _look_again(partition: Partition, spool: Spool) -> None:
        """Wait until something has changed that may let this partition's next record through."""
        if not spool.holds(partition.lane):
            await asyncio.sleep(_LOOK_AGAIN_S)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_AGAIN_S):
                await spool.changed()


# Java's murmur2 over the key, so that every client with Kafka's default agrees on the partition.
_CHOOSE = DefaultPartitioner()


def choose_partition(key: bytes | None, count: int) -> int:
    """The partition of a key; a random one without a key."""
    numbers = list(range(count))
    chosen: int = _CHOOSE(key, numbers, numbers)
    return chosen
