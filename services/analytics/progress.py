"""Knows up to which time everything a partition held is stored, and writes it down. Run by `sink_session.py`.

Every second the ends of all partitions are asked for, and the time of asking is remembered with them: once the sink
has stored up to that end, everything that Kafka had acknowledged at that time is stored. That holds for quiet
partitions as for busy ones, and while the sink lags the last proven time simply stands.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import datetime

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from servicekit.errors import BinnacleError
from servicekit.ports.analytics_store import AnalyticsStore
from servicekit.ports.clock import Clock
from services.analytics.metrics import CAUGHT_UP_TIME
from services.analytics.tables import VIEWS

log = structlog.get_logger()

EVERY_S = 1.0
_ASK_WITHIN_S = 5.0
_INSERT = "INSERT INTO sink_progress (topic, partition, next_offset, caught_up_time) FORMAT JSONEachRow"
_FAILURES = (BinnacleError, KafkaError, IllegalStateError, TimeoutError, OSError)

Goal = tuple[datetime, int]


class Progress:
    """How far the partitions of one consumer are stored, and what that proves. Pure; not thread-safe.

    A goal is a time and the end that a partition had then; one that is out of reach stays until it is reached, so
    that a sink that lags proves something all the same.
    """

    def __init__(self) -> None:
        self._stored: dict[TopicPartition, int] = {}
        self._goals: dict[TopicPartition, Goal] = {}
        self._proven: dict[TopicPartition, datetime] = {}

    def restart(self) -> None:
        """Another assignment: positions come from the commits again."""
        self._stored.clear()
        self._goals.clear()
        self._proven.clear()

    def store(self, next_offsets: Mapping[TopicPartition, int]) -> None:
        """Everything below these offsets is stored, or a dead letter."""
        self._stored.update(next_offsets)
        self._prove()

    def unknown(self, partitions: Sequence[TopicPartition]) -> Sequence[TopicPartition]:
        """Those of which nothing was stored yet: whoever knows their commits tells them by `resume`."""
        return [partition for partition in partitions if partition not in self._stored]

    def resume(self, partition: TopicPartition, offset: int) -> None:
        """Where reading went on after the assignment; what was stored meanwhile counts more."""
        self._stored.setdefault(partition, offset)

    def aim(self, ends: Mapping[TopicPartition, int], *, asked: datetime) -> None:
        """The ends of partitions as Kafka told them, not before `asked`."""
        for partition, end in ends.items():
            if self._stored.get(partition, 0) > end:
                del self._stored[partition]  # a broker reborn empty: these offsets are another life's
            self._goals.setdefault(partition, (asked, end))
        self._prove()

    def proven(self) -> Mapping[TopicPartition, tuple[datetime, int]]:
        """By partition: up to when everything it held is stored, and the offset behind what is stored."""
        return {
            partition: (moment, self._stored[partition])
            for partition, moment in self._proven.items()
            if partition in self._stored
        }

    def _prove(self) -> None:
        for partition, (asked, end) in list(self._goals.items()):
            if self._stored.get(partition, -1) >= end:
                self._proven[partition] = asked
                del self._goals[partition]


class ProgressKeeper:
    """Asks for ends and writes what is proven, as well as it can: without it completeness says pending for longer."""

    def __init__(self, consumer: AIOKafkaConsumer, store: AnalyticsStore, *, clock: Clock) -> None:
        self.progress = Progress()
        self._consumer = consumer
        self._store = store
        self._clock = clock
        self._written: Mapping[TopicPartition, tuple[datetime, int]] = {}

    async def keep(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_ASK_WITHIN_S):
                    await self.write_once()
            except _FAILURES as error:
                log.debug("sink.progress_not_written", error=repr(error))
            await asyncio.sleep(EVERY_S)

    async def write_once(self) -> None:
        """Ask, and write what is proven in one insert.

        Raises:
            KafkaError, IllegalStateError: the brokers do not say.
            BackendUnavailable, BackendTimeout, Overloaded, NotReady: the store does not take it.
        """
        partitions = [partition for partition in self._consumer.assignment() if partition.topic in VIEWS]
        if not partitions:
            return
        for partition in self.progress.unknown(partitions):
            await self._resume(partition)
        asked = self._clock.now()
        self.progress.aim(await self._consumer.end_offsets(partitions), asked=asked)
        proven = {place: what for place, what in self.progress.proven().items() if place in partitions}
        fresh = {place: what for place, what in proven.items() if self._written.get(place) != what}
        if fresh:
            await self._store.insert_bytes(_INSERT, b"\n".join(_row(*item) for item in fresh.items()), settings={})
            self._written = proven
        _show(partitions, proven)

    async def _resume(self, partition: TopicPartition) -> None:
        """Below the commit everything is stored; without one, what the partition begins behind is gone for good."""
        committed = await self._consumer.committed(partition)
        if committed is None:
            committed = (await self._consumer.beginning_offsets([partition]))[partition]
        self.progress.resume(partition, committed)


def _show(partitions: Sequence[TopicPartition], proven: Mapping[TopicPartition, tuple[datetime, int]]) -> None:
    for topic in {partition.topic for partition in partitions}:
        times = [proven[place][0].timestamp() for place in partitions if place.topic == topic and place in proven]
        if len(times) == sum(place.topic == topic for place in partitions):
            CAUGHT_UP_TIME.labels(topic).set(min(times))


def _row(partition: TopicPartition, proven: tuple[datetime, int]) -> bytes:
    caught_up, next_offset = proven
    return json.dumps(
        {
            "topic": partition.topic,
            "partition": partition.partition,
            "next_offset": next_offset,
            "caught_up_time": caught_up.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],
        }
    ).encode()
