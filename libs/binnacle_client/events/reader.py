"""Reads one topic: fetches, hands out within a bound, commits what is acknowledged, lets go in a rebalance.

Used by `stream.py`, which makes events of its deliveries; aiokafka calls it around each rebalance.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from binnacle_client.events.event import Delivery, Place
from binnacle_client.events.starting import Start, starting_offsets
from binnacle_client.events.window import Window
from servicekit.errors import BackendTimeout, BackendUnavailable, BinnacleError, NotReady
from servicekit.events.dead_letters import Record, record_time
from servicekit.events.topics import TopicSpec
from servicekit.ports.clock import Clock

log = structlog.get_logger()

_POLL_MS = 200
_FETCH_RECORDS = 500
_ANSWER_S = 10.0
_PROBE_AFTER_S = 5.0

# aiokafka's ConsumerRecord, which ships no types.
Fetched = Any


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a stream, each with what happens there.

    `max_unacknowledged`: so many events may be handed out beyond the first unacknowledged; then iteration waits.
    `acknowledge_within_s`: so long it waits for room, then it raises NotReady.
    `revoke_within_s`: so long a rebalance waits for events in hand to be acknowledged; the others come again.
    `unavailable_after_s`: so long no broker answers, then iteration raises BackendUnavailable.
    """

    max_unacknowledged: int = 1000
    acknowledge_within_s: float = 300.0
    revoke_within_s: float = 3.0
    unavailable_after_s: float = 60.0


class Reader(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka's base has no types
    """Runs on a started consumer that has no subscription yet; `group` is None for one that commits nothing."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        *,
        spec: TopicSpec,
        group: str | None,
        start: Start,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self._consumer = consumer
        self._spec = spec
        self._group = group
        self._start = start
        self._limits = limits
        self._clock = clock
        self._windows: dict[TopicPartition, Window] = {}
        self._fetched: deque[tuple[Window, Record]] = deque()
        self._changed = asyncio.Event()
        self._committing = asyncio.Lock()
        self._failure: BinnacleError | None = None
        self._heard_s = clock.monotonic_s()

    async def begin(self) -> None:
        """Join the group, or take all partitions at their start.

        Raises:
            NotReady: the topic does not exist, or the broker cannot look up times.
            KafkaError: no answer.
        """
        topic = self._spec.name
        if topic not in await self._consumer.topics():
            raise NotReady(f"topic {topic} does not exist on this Kafka: Binnacle's services create it when they start")
        if self._group is not None:
            self._consumer.subscribe([topic], listener=self)
            return
        partitions = [TopicPartition(topic, number) for number in sorted(await self._partition_numbers(topic))]
        offsets = await starting_offsets(self._consumer, partitions, start=self._start)
        self._consumer.assign(partitions)
        self._seek(offsets)

    async def _partition_numbers(self, topic: str) -> Iterable[int]:
        cluster = await self._consumer._client.fetch_all_metadata()  # noqa: SLF001  # the public way knows only subscribed topics
        return cluster.partitions_for_topic(topic) or ()

    async def next(self) -> Delivery:
        """The next record, in order within its partition; waits for one. Cancelling it loses nothing.

        Raises:
            NotReady: nothing was acknowledged for too long; or the start cannot be found.
            BackendUnavailable: no broker answers.
        """
        while True:
            await self._wait_for_room()
            while not self._fetched:
                await self._fetch()
            window, record = self._fetched.popleft()
            if not window.live:
                continue
            window.hand_out(record.offset)
            if self._group is None:
                window.acknowledge(record.offset)
            return Delivery(record, window)

    async def settle(self, deliveries: Sequence[Delivery]) -> bool:
        """Acknowledge, and commit as far as there is no gap; whether all of it counts.

        Raises:
            BackendUnavailable, BackendTimeout: not committed; a later acknowledgement commits it as well.
        """
        live = True
        for delivery in deliveries:
            live &= delivery.window.live
            if delivery.window.live:
                delivery.window.acknowledge(delivery.record.offset)
        self._changed.set()
        return await self._commit() and live

    async def close(self) -> None:
        """Commit once more what is acknowledged; what fails is read again."""
        try:
            await self._commit()
        except BinnacleError as exc:
            log.warning("events.commit_failed", topic=self._spec.name, group=self._group, error=exc.message)

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Give what is in hand a moment to be acknowledged, then let go; called by aiokafka."""
        del revoked  # the protocol in use gives up all partitions at once
        self._fetched.clear()
        try:
            async with asyncio.timeout(self._limits.revoke_within_s):
                while any(window.unacknowledged for window in self._windows.values()):
                    await self._change()
        except TimeoutError:
            log.info("events.revoked_in_hand", topic=self._spec.name, group=self._group)
        self._let_go()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Go on where the group stopped; called by aiokafka, which would only log an error."""
        self._let_go()
        try:
            async with asyncio.timeout(_ANSWER_S):
                self._seek(await self._group_offsets(sorted(assigned)))
        except BinnacleError as exc:
            self._failure = exc
        except (KafkaError, TimeoutError) as exc:
            self._failure = BackendUnavailable(f"Kafka did not say where group {self._group!r} stopped: {exc!r}")

    async def _group_offsets(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """What is committed, and the start elsewhere: committed at once, lest a restart begin at a later "latest"."""
        found = await asyncio.gather(*(self._consumer.committed(one) for one in partitions))
        committed = {one: offset for one, offset in zip(partitions, found, strict=True) if offset is not None}
        fresh = [one for one in partitions if one not in committed]
        starts = await starting_offsets(self._consumer, fresh, start=self._start)
        if starts:
            await self._consumer.commit(starts)
        return {**committed, **starts}

    def _seek(self, offsets: Mapping[TopicPartition, int]) -> None:
        for partition, offset in offsets.items():
            self._consumer.seek(partition, offset)
            self._windows[partition] = Window(offset)

    def _let_go(self) -> None:
        for window in self._windows.values():
            window.live = False
        self._windows.clear()
        self._fetched.clear()
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _wait_for_room(self) -> None:
        try:
            async with asyncio.timeout(self._limits.acknowledge_within_s):
                while sum(map(len, self._windows.values())) >= self._limits.max_unacknowledged:
                    await self._change()
        except TimeoutError as exc:
            stuck, window = max(self._windows.items(), key=lambda item: len(item[1]))
            place = Place(stuck.topic, stuck.partition, window.position)
            raise NotReady(
                f"{self._limits.max_unacknowledged} events wait behind {place}, which was not acknowledged for "
                f"{self._limits.acknowledge_within_s:g} s: call ack() for each event that is done",
                reason="NOT_ACKNOWLEDGED",
            ) from exc

    async def _fetch(self) -> None:
        if self._failure is not None:
            raise self._failure
        fetched = await self._poll()
        for partition, records in fetched.items():
            self._take(partition, records)
        await self._probe(heard=bool(fetched))

    async def _poll(self) -> Mapping[TopicPartition, Sequence[Fetched]]:
        if not self._windows:  # getmany would wait for an assignment, however long
            await asyncio.sleep(_POLL_MS / 1000)
            return {}
        try:
            async with asyncio.timeout(_ANSWER_S):
                found = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_FETCH_RECORDS)
        except TimeoutError:
            return {}  # amid a rebalance
        except KafkaError as exc:
            raise BackendUnavailable(
                f"Kafka refuses to hand out {self._spec.name}: {exc!r}", reason="KAFKA_UNAVAILABLE"
            ) from exc
        return dict(found)

    def _take(self, partition: TopicPartition, records: Sequence[Fetched]) -> None:
        """All that was fetched before is handed out by now, so that `window.next` is the offset to expect."""
        window, first = self._windows.get(partition), records[0].offset
        if window is None:
            return  # fetched before the start was known
        where = {"topic": partition.topic, "partition": partition.partition, "expected": window.next, "offset": first}
        if first > window.next and not self._spec.compacted:
            log.warning("events.expired_unread", **where)
        elif first < window.next:  # the log begins anew, such as on a broker that keeps nothing
            log.warning("events.offsets_restarted", **where)
            window.live = False
            window = self._windows[partition] = Window(first)
        self._fetched.extend((window, _to_record(one)) for one in records)

    async def _probe(self, *, heard: bool) -> None:
        """Ask after silence: the client itself waits for its brokers for ever."""
        now_s = self._clock.monotonic_s()
        if heard:
            self._heard_s = now_s
        silent_s = now_s - self._heard_s
        if silent_s < min(_PROBE_AFTER_S, self._limits.unavailable_after_s):
            return
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._consumer.topics()
            self._heard_s = self._clock.monotonic_s()
        except (KafkaError, TimeoutError) as exc:
            if silent_s >= self._limits.unavailable_after_s:
                raise BackendUnavailable(
                    f"no Kafka broker has answered for {silent_s:.0f} s: open the stream again once one does",
                    reason="KAFKA_UNAVAILABLE",
                ) from exc

    async def _commit(self) -> bool:
        """Commit every window's position; false if a rebalance has overtaken it. Callers that wait share one commit."""
        if self._group is None:
            return True
        async with self._committing:
            due = {one: window for one, window in self._windows.items() if window.position > window.committed}
            positions = {one: window.position for one, window in due.items()}
            if not positions:
                return True
            try:
                async with asyncio.timeout(_ANSWER_S):
                    await self._consumer.commit(positions)
            except (CommitFailedError, IllegalStateError) as exc:
                log.info("events.commit_overtaken", topic=self._spec.name, group=self._group, error=repr(exc))
                return False
            except TimeoutError as exc:
                raise BackendTimeout(f"Kafka did not take the commit of group {self._group!r} in time") from exc
            except KafkaError as exc:
                raise BackendUnavailable(f"Kafka refuses the commit of group {self._group!r}: {exc!r}") from exc
            for one, window in due.items():
                window.committed = positions[one]
            return True


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
