"""Counts what is stored, waits until nothing more comes, and judges a run by it. Used by `sink.py`."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaException, TopicPartition

from servicekit.errors import BinnacleError
from servicekit.events.topics import INTERACTION_COMPLETED, TOPICS
from tests.chaos.stack import ChaosStack

_GROUP = "analytics"
_SETTLED_WITHIN_S = 600.0  # on a crowded machine the broker alone can take minutes to recover
_POLL_S = 0.5
_ANSWER_S = 2.0


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows, request ids and the rollup's requests of everything that the stack ever stored."""

    stored: int = 0
    distinct: int = 0
    rollup: int = 0

    def since(self, before: "Counts") -> "Counts":
        """What came between."""
        return Counts(self.stored - before.stored, self.distinct - before.distinct, self.rollup - before.rollup)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: what callers were promised beside what is stored."""

    seed: int
    kills: int
    acknowledged: int
    failed: int
    counts: Counts
    in_flight_at_kills: int
    lost: int
    settled: bool

    @property
    def unacknowledged(self) -> int:
        """Stored, though no caller saw it completed."""
        return self.counts.stored - self.acknowledged + self.lost

    @property
    def faults(self) -> Sequence[str]:
        """What is wrong, for people; empty if nothing is."""
        counts, wrong = self.counts, []
        if not self.settled:
            wrong.append(f"did not settle within {_SETTLED_WITHIN_S:g} s")
        if self.lost:
            wrong.append(f"{self.lost} acknowledged requests are not stored")
        if not counts.stored == counts.distinct == counts.rollup:
            wrong.append(f"stored {counts.stored}, distinct {counts.distinct} and rollup {counts.rollup} differ")
        if self.unacknowledged > self.in_flight_at_kills:
            wrong.append(f"{self.unacknowledged} unacknowledged, only {self.in_flight_at_kills} in flight at the kills")
        return wrong


@dataclass
class Tally:
    """What is stored, as far as it is known; `settled` once nothing changes any more."""

    promised: set[str]
    missing: set[str]
    counts: Counts = Counts()
    settled: bool = False

    async def take(self, stack: ChaosStack) -> None:
        """Count again."""
        before = self.counts
        self.missing = self.promised - await _stored_ids(stack)
        self.counts = await _count(stack)
        whole = not self.missing and self.counts.stored == self.counts.distinct == self.counts.rollup
        same = self.counts == before
        self.settled = whole and same and await _all_serve(stack) and await _read_all(stack)


async def settle(stack: ChaosStack, promised: set[str]) -> Tally:
    """Wait until all that was promised is stored, everything is counted alike and nothing changes; 120 s at most."""
    tally = Tally(promised, missing=promised)
    with suppress(TimeoutError):
        async with asyncio.timeout(_SETTLED_WITHIN_S):
            while not tally.settled:
                with suppress(BinnacleError, KafkaException):
                    await tally.take(stack)
                await asyncio.sleep(_POLL_S)
    return tally


async def _count(stack: ChaosStack) -> Counts:
    (rows,) = await stack.store.query("SELECT count() AS stored, uniqExact(request_id) AS distinct FROM interactions")
    (rollup,) = await stack.store.query("SELECT sum(requests) AS requests FROM usage_by_minute")
    return Counts(int(rows["stored"]), int(rows["distinct"]), int(rollup["requests"]))


async def _stored_ids(stack: ChaosStack) -> set[str]:
    rows = await stack.store.query("SELECT request_id FROM interactions")
    return {row["request_id"] for row in rows}


async def _all_serve(stack: ChaosStack) -> bool:
    states = await asyncio.gather(*(stack.binnacle.health(service) for service in ("gateway", "analytics")))
    return set(states) == {"serving"}


async def _read_all(stack: ChaosStack) -> bool:
    return await asyncio.to_thread(_lag, stack.kafka.address) == 0


def _lag(bootstrap: str) -> int:
    """How many interactions the sink has not committed."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": _GROUP, "log_level": 2})
    partitions = [
        TopicPartition(INTERACTION_COMPLETED, number) for number in range(TOPICS[INTERACTION_COMPLETED].partitions)
    ]
    try:
        lag = 0
        for committed in consumer.committed(partitions, timeout=_ANSWER_S):
            _low, high = consumer.get_watermark_offsets(committed, timeout=_ANSWER_S, cached=False)
            lag += high - (0 if committed.offset == OFFSET_INVALID else committed.offset)
        return lag
    finally:
        consumer.close()
