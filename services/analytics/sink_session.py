"""One consumer's life: fetches, batches by topic, stores, then commits exactly what was stored.

Started by `sink.py`, again and again for as long as the service runs. What survives a kill -9 is what was
committed; everything stored beyond that is stored once more and collapses by its event id.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from servicekit.errors import BackendTimeout, BackendUnavailable, BinnacleError, NotReady, Overloaded
from servicekit.events.dead_letter_cap import DeadLetterCapReached, Trip
from servicekit.events.metrics import LAG
from servicekit.events.topics import TOPICS, replay_topic
from servicekit.ports.clock import Clock
from servicekit.ports.event_bus import DeadLetterLimits, RejectedEvent
from services.analytics.batching import Batch, Gap, Limits
from services.analytics.metrics import BUFFERED_BYTES, LOST_RECORDS, REPLAYED, RETRIES, STORE_SECONDS
from services.analytics.progress import ProgressKeeper
from services.analytics.record_bytes import RowEncoder, restored
from services.analytics.sink_health import SinkHealth
from services.analytics.tables import TopicTable
from services.analytics.writing import BatchWriter

log = structlog.get_logger()

_POLL_MS = 100
_POLL_RECORDS = 500
_INSERTS_AT_ONCE = 2
# One batch of a topic is on its way to the store while the one before it is written.
_BATCHES_AT_ONCE = 2
_MAX_BACKOFF_S = 5.0
_PROBE_AFTER_S = 2.0
_PROBE_WITHIN_S = 2.0
_PROBES_LOST = 2
_REVOKE_WITHIN_S = 5.0
_DRAIN_WITHIN_S = 10.0
_RETRIED = (BackendUnavailable, BackendTimeout, Overloaded, NotReady)

Records = Sequence[ConsumerRecord[bytes, bytes]]


class BrokerLostError(Exception):
    """The brokers this consumer knows do not answer; a fresh one may find others."""


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """`max_buffered_bytes` bounds what waits in memory while ClickHouse is away."""

    group: str = "analytics"
    limits: Limits = field(default_factory=Limits)
    max_buffered_bytes: int = 160 * 1024 * 1024
    dead_letter_limits: DeadLetterLimits = field(default_factory=DeadLetterLimits)


class SinkSession(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """Runs on a started consumer that has no subscription yet."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        *,
        tables: Mapping[str, TopicTable],
        writer: BatchWriter,
        clock: Clock,
        settings: SinkSettings,
        health: SinkHealth | None = None,
        progress: ProgressKeeper | None = None,
    ) -> None:
        self._consumer = consumer
        self._health = health or SinkHealth(settings.group)
        self._progress = progress
        self._tables = tables
        self._writer = writer
        self._clock = clock
        self._settings = settings
        # A topic and its replays fill the same batches; this says which.
        self._topics = {topic: topic for topic in tables} | {
            replay_topic(topic, settings.group): topic for topic in tables
        }
        self._encoders = {topic: RowEncoder(topic, message_name=TOPICS[topic].message) for topic in tables}
        self._filling: dict[str, Batch] = {}
        # By topic, the oldest first.
        self._storing: dict[str, list[tuple[Batch, asyncio.Task[bool]]]] = {topic: [] for topic in tables}
        self._slots = asyncio.Semaphore(_INSERTS_AT_ONCE)
        self._expected: dict[TopicPartition, int] = {}
        self._epoch = 0
        self._heard_s = clock.monotonic_s()
        self._probes_lost = 0

    async def run(self) -> None:
        """Until cancelled; then what is in hand is stored and committed, within 10 s.

        Raises:
            BrokerLostError: the brokers are gone.
            KafkaError: they answer with an error that only a new consumer may get over.
        """
        self._consumer.subscribe(list(self._topics), listener=self)
        self._health.no_session, self._health.paused = "", False
        lost: BrokerLostError | KafkaError | None = None
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(self._progress.keep(), name="progress") if self._progress else None
            try:
                while True:
                    await self._fetch()
                    self._store_due(tasks)
                    self._throttle()
                    await self._probe()
            except asyncio.CancelledError:
                await self._drain(tasks)
                raise
            except (BrokerLostError, KafkaError) as error:
                lost = error
                self._abandon()
            finally:
                if keeping is not None:
                    keeping.cancel()
        if lost is not None:  # raised out here, where the group does not wrap it
            raise lost

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        """What is being stored may finish and commit; the rest is read again by whoever comes next."""
        if not revoked:
            return
        self._filling.clear()
        await self._finish_storing(within_s=_REVOKE_WITHIN_S)
        self._abandon()

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        """A new epoch: positions come from the commits, and older batches commit no more."""
        self._epoch += 1
        if self._progress is not None:
            self._progress.progress.restart()
        self._filling.clear()
        self._expected.clear()
        log.info("sink.assigned", partitions=len(assigned), epoch=self._epoch)

    async def _fetch(self) -> None:
        if not self._consumer.assignment():
            # getmany would wait for an assignment, however long, and nobody would notice that the brokers are gone.
            await asyncio.sleep(_POLL_MS / 1000)
            return
        fetched = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_POLL_RECORDS)
        if fetched:
            self._heard_s = self._clock.monotonic_s()
            self._probes_lost = 0
        for partition, records in fetched.items():
            self._take(partition, records)

    def _take(self, partition: TopicPartition, records: Records) -> None:
        topic = self._topics[partition.topic]
        if topic in self._health.stopped:
            return
        batch = self._filling.get(topic)
        if batch is None:
            batch = Batch(topic=topic, epoch=self._epoch, started_s=self._clock.monotonic_s())
            self._filling[topic] = batch
        next_offset = records[-1].offset + 1
        if partition.topic == topic:
            self._notice_gap(partition, records[0].offset, batch)
        else:
            records = self._restored(records, batch)
        encoder = self._encoders[topic]
        for record in records:
            try:
                batch.add(record, encoder.encode(record))
            except RejectedEvent as rejection:
                batch.reject(record, rejection)
        self._expected[partition] = next_offset
        batch.reach(partition, next_offset)

    def _restored(self, replays: Records, batch: Batch) -> Records:
        """Dead letters that came back, where they first were; anything else on the replay topic is passed over."""
        records = []
        for replay in replays:
            try:
                record, origin = restored(replay, topic=batch.topic, group=self._settings.group)
            except RejectedEvent as rejection:
                log.warning(
                    "sink.no_replay",
                    topic=replay.topic,
                    partition=replay.partition,
                    offset=replay.offset,
                    error=str(rejection),
                )
                continue
            batch.replayed[record.partition, record.offset] = origin
            records.append(record)
        REPLAYED.labels(topic=batch.topic).inc(len(records))
        return records

    def _notice_gap(self, partition: TopicPartition, offset: int, batch: Batch) -> None:
        """Offsets that are skipped were evicted or expired unread; a compacted topic skips them by design."""
        expected = self._expected.get(partition, offset)
        if offset < expected:
            log.warning("sink.offsets_restarted", topic=partition.topic, partition=partition.partition, offset=offset)
        if offset <= expected or TOPICS[partition.topic].compacted:
            return
        gap = Gap(partition.topic, partition.partition, expected, offset - 1)
        batch.gaps.append(gap)
        LOST_RECORDS.labels(topic=gap.topic).inc(offset - expected)
        log.warning(
            "sink.records_lost",
            topic=gap.topic,
            partition=gap.partition,
            first_offset=gap.first_offset,
            last_offset=gap.last_offset,
        )

    def _store_due(self, tasks: asyncio.TaskGroup, *, everything: bool = False) -> None:
        now_s = self._clock.monotonic_s()
        for topic, batch in list(self._filling.items()):
            due = everything or batch.is_due(self._settings.limits, now_s=now_s)
            storing = self._storing[topic]
            if due and (len(storing) < _BATCHES_AT_ONCE or everything):
                del self._filling[topic]
                # What was read before a rebalance is read again: nothing has to wait for it.
                before = next((one for older, one in storing[::-1] if older.epoch == batch.epoch), None)
                task = tasks.create_task(self._store(batch, before=before), name=f"store {topic}")
                storing.append((batch, task))
                task.add_done_callback(partial(self._forget, topic))

    def _forget(self, topic: str, done: asyncio.Task[bool]) -> None:
        self._storing[topic] = [one for one in self._storing[topic] if one[1] is not done]

    async def _store(self, batch: Batch, *, before: asyncio.Task[bool] | None) -> bool:
        """Store, and commit once all batches before it are stored too; whether they are."""
        failures = 0
        with STORE_SECONDS.labels(topic=batch.topic).time():
            while True:
                try:
                    async with self._slots:
                        await self._writer.write(batch, self._tables[batch.topic])
                    break
                except _RETRIED as error:
                    failures += 1
                    await self._back_off(batch, error, failures)
                except DeadLetterCapReached as reached:
                    self._stop_topic(batch.topic, reached.trip)
                    return False
        self._health.failing.pop(batch.topic, None)
        if before is not None and not await _succeeded(before):
            return False
        await self._commit(batch)
        return True

    def _stop_topic(self, topic: str, trip: Trip) -> None:
        """Neither this batch nor a later one of the topic is committed; its partitions are paused next."""
        self._health.failing.pop(topic, None)
        self._health.stop(topic, trip)
        self._filling.pop(topic, None)

    async def _back_off(self, batch: Batch, error: BinnacleError, failures: int) -> None:
        wait_s = min(_MAX_BACKOFF_S, 0.1 * 2**failures)
        RETRIES.labels(topic=batch.topic, reason=error.reason).inc()
        self._health.failing[batch.topic] = error.message[:200]
        log.warning(
            "sink.store_failed",
            topic=batch.topic,
            rows=len(batch.rows),
            reason=error.reason,
            error=error.message[:300],
            retry_in_s=wait_s,
        )
        await asyncio.sleep(wait_s)

    async def _commit(self, batch: Batch) -> None:
        """Only what was stored, only for partitions that are still ours, only in the epoch they were read in."""
        if batch.epoch != self._epoch:
            return
        owned = self._consumer.assignment()
        offsets = {partition: offset for partition, offset in batch.next_offsets.items() if partition in owned}
        if not offsets:
            return
        if self._progress is not None:
            self._progress.progress.store(offsets)
        try:
            await self._consumer.commit(offsets)
        except (KafkaError, IllegalStateError) as error:
            # Stored and not committed: read again by whoever owns the partition, and collapsed.
            log.warning("sink.commit_failed", topic=batch.topic, error=repr(error))
            return
        self._show_lag(batch)
        log.debug("sink.stored", topic=batch.topic, rows=len(batch.rows), bytes=batch.size_bytes)

    def _show_lag(self, batch: Batch) -> None:
        lag = sum(
            max(0, (self._consumer.highwater(partition) or 0) - self._expected.get(partition, 0))
            for partition in self._consumer.assignment()
            if partition.topic == batch.topic and partition in self._expected
        )
        LAG.labels(topic=batch.topic, group=self._settings.group).set(lag)

    def _throttle(self) -> None:
        """Stop fetching while too much waits, and for good what was stopped; what is not fetched only lags."""
        waiting = [*self._filling.values(), *(batch for batch, _task in self._all_storing())]
        size_bytes = sum(batch.size_bytes for batch in waiting)
        BUFFERED_BYTES.set(size_bytes)
        if size_bytes > self._settings.max_buffered_bytes and not self._health.paused:
            self._health.paused = True
            log.warning("sink.paused", buffered_bytes=size_bytes)
        elif self._health.paused and size_bytes < self._settings.max_buffered_bytes // 2:
            self._health.paused = False
            log.info("sink.resumed", buffered_bytes=size_bytes)
        self._pause()

    def _pause(self) -> None:
        """Bring the consumer in line; a rebalance forgets what was paused, so that it is looked at each time."""
        paused, assigned = self._consumer.paused(), self._consumer.assignment()
        if not (paused or self._health.paused or self._health.stopped):
            return
        stopped = {one for one in assigned if self._topics[one.topic] in self._health.stopped}
        wanted = assigned if self._health.paused else stopped
        if wanted - paused:
            self._consumer.pause(*(wanted - paused))
        if paused - wanted:
            self._consumer.resume(*(paused - wanted))

    async def _probe(self) -> None:
        """Ask after silence: the client never looks for brokers beyond those it once knew."""
        if self._clock.monotonic_s() - self._heard_s < _PROBE_AFTER_S:
            return
        self._heard_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(_PROBE_WITHIN_S):
                await self._consumer.topics()
        except (KafkaError, TimeoutError) as error:
            self._probes_lost += 1
            if self._probes_lost >= _PROBES_LOST:
                raise BrokerLostError(f"no broker answers: {error!r}") from error
        else:
            self._probes_lost = 0

    async def _drain(self, tasks: asyncio.TaskGroup) -> None:
        await self._finish_storing(within_s=_DRAIN_WITHIN_S)
        self._store_due(tasks, everything=True)
        await self._finish_storing(within_s=_DRAIN_WITHIN_S)
        self._abandon()

    async def _finish_storing(self, *, within_s: float) -> None:
        running = [task for _batch, task in self._all_storing()]
        if running:
            await asyncio.wait(running, timeout=within_s)

    def _all_storing(self) -> list[tuple[Batch, asyncio.Task[bool]]]:
        return [one for storing in self._storing.values() for one in storing]

    def _abandon(self) -> None:
        """Let go of what is not stored; it is not committed either, so it is read again."""
        self._filling.clear()
        self._health.failing.clear()
        for _batch, task in self._all_storing():
            task.cancel()


async def _succeeded(task: asyncio.Task[bool]) -> bool:
    """Whether a batch, and with it every batch before it, was stored; waits until that is known."""
    await asyncio.wait({task})
    return not task.cancelled() and task.exception() is None and task.result()
