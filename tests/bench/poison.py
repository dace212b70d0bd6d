"""What one poison message among 100,000 costs the sink, and that one in five stops it.

Run as `python -m tests.bench.poison --json`. The sink's session and its writer are the real ones, in front of an
embedded ClickHouse in a process of its own; the topic is in memory, so that nothing but the sink is measured.
"""

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from aiokafka import ConsumerRecord, TopicPartition

from servicekit.adapters.clickhouse.analytics_store import ClickHouseAnalyticsStore, open_analytics_store
from servicekit.events.dead_letters import DeadLetter, read_burial
from servicekit.events.topics import INTERACTION_COMPLETED, TOPICS
from servicekit.ports.clock import SystemClock
from services.analytics.config import Settings
from services.analytics.migrations import migrate, read_migrations
from services.analytics.sink_health import SinkHealth
from services.analytics.sink_session import SinkSession, SinkSettings
from services.analytics.tables import read_tables
from services.analytics.writing import BatchWriter
from tests.bench._interactions import BenchEvent, interactions
from tests.clickhouse_process import running_front

TOPIC = INTERACTION_COMPLETED
CORRUPT = b"\x0a\xff\xff\xff\x0f a length that swallows what follows"
_PARTITIONS = TOPICS[TOPIC].partitions
_FETCH = 500
_RUN_S = 300


class TopicInMemory:
    """As much of an aiokafka consumer as the sink uses, in front of a list; those numbered in `poison` are corrupt."""

    def __init__(self, events: Sequence[BenchEvent], poison: frozenset[int]) -> None:
        self._fetches = deque(_fetches(events, poison))
        self._held: set[TopicPartition] = set()
        self.committed: dict[TopicPartition, int] = {}

    def subscribe(self, _topics: Sequence[str], *, listener: object) -> None:
        """There is but one topic here."""

    async def getmany(self, **_bounds: int) -> dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]:
        """The next fetch; nothing of what is paused."""
        if not self._fetches or self._held:
            await asyncio.sleep(0.005)
            return {}
        await asyncio.sleep(0)
        return self._fetches.popleft()

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        """Remember them."""
        self.committed |= offsets

    async def topics(self) -> set[str]:
        """It always answers."""
        return {TOPIC}

    def assignment(self) -> set[TopicPartition]:
        """All partitions."""
        return {TopicPartition(TOPIC, number) for number in range(_PARTITIONS)}

    def paused(self) -> set[TopicPartition]:
        """What was paused."""
        return set(self._held)

    def pause(self, *partitions: TopicPartition) -> None:
        """Pause."""
        self._held |= set(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        """Go on."""
        self._held -= set(partitions)

    def highwater(self, _partition: TopicPartition) -> int:
        """Unknown."""
        return 0


def _fetches(
    events: Sequence[BenchEvent], poison: frozenset[int]
) -> Iterator[dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]]:
    now_ms = int(time.time() * 1000)
    offsets = [0] * _PARTITIONS
    for start in range(0, len(events), _FETCH):
        number = start // _FETCH % _PARTITIONS
        records = []
        for place, event in enumerate(events[start : start + _FETCH], start):
            value = CORRUPT if place in poison else event.value
            records.append(
                ConsumerRecord(
                    TOPIC, number, offsets[number], now_ms, 0, event.key, value, None, 1, len(value), event.headers
                )
            )
            offsets[number] += 1
        yield {TopicPartition(TOPIC, number): records}


@dataclass
class Run:
    """What came of one topic."""

    seconds: float = 0.0
    stored: int = 0
    committed: int = 0
    letters: list[DeadLetter] = field(default_factory=list)
    stop_reason: str = ""


async def run_sink(store: ClickHouseAnalyticsStore, events: Sequence[BenchEvent], *, poison: frozenset[int]) -> Run:
    """Give the topic to a new sink on an empty store until all of it is committed, or the sink has stopped it."""
    await store.execute("DROP DATABASE IF EXISTS binnacle SYNC")
    await store.create_database()
    await migrate(store, read_migrations(Settings().migrations_dir))
    run, health, consumer = Run(), SinkHealth("analytics"), TopicInMemory(events, poison)

    async def keep(letter: DeadLetter) -> None:
        run.letters.append(letter)

    session = SinkSession(
        consumer,
        tables=await read_tables(store),
        writer=BatchWriter(store, group="analytics", send_dead_letter=keep),
        clock=SystemClock(),
        settings=SinkSettings(),
        health=health,
    )
    started_s = time.perf_counter()
    task = asyncio.create_task(session.run())
    try:
        async with asyncio.timeout(_RUN_S):
            while not health.stopped and sum(consumer.committed.values()) < len(events):
                await asyncio.sleep(0.005)
    finally:
        run.seconds = time.perf_counter() - started_s
        task.cancel()
        await asyncio.wait({task})
    rows = await store.query("SELECT count() AS n FROM interactions")
    run.stored, run.committed = int(rows[0]["n"]), sum(consumer.committed.values())
    run.stop_reason = "; ".join(str(trip) for trip in health.stopped.values())
    return run


async def measure(store_url: str, *, events: int, pairs: int = 1) -> dict[str, Any]:
    """Clean and with one poison message, `pairs` times in turns, the better of each; and with one in five."""
    start_us = int(time.time() * 1_000_000) - events * 1000
    made = list(interactions(events, start_us=start_us, step_us=1000))
    clean, poisoned = list[Run](), list[Run]()
    async with open_analytics_store(store_url) as store:
        await run_sink(store, made[: events // 10], poison=frozenset())  # warms the engine up
        for _ in range(pairs):
            clean.append(await run_sink(store, made, poison=frozenset()))
            poisoned.append(await run_sink(store, made, poison=frozenset({events * 41 // 100})))
        fifth = await run_sink(store, made, poison=frozenset(range(4, events, 5)))
    clean_rate = events / min(run.seconds for run in clean)
    poison_rate = events / min(run.seconds for run in poisoned)
    burial, _headers = read_burial(poisoned[-1].letters[0].headers)
    return {
        "clean_events_per_s": round(clean_rate),
        "poison_events_per_s": round(poison_rate),
        "ratio": round(poison_rate / clean_rate, 3),
        "events": events,
        "clean_stored": min(run.stored for run in clean),
        "dead_letters": max(len(run.letters) for run in poisoned),
        "stored": min(run.stored for run in poisoned),
        "dead_letter_stage": burial.stage,
        "dead_letter_reason": burial.error,
        "stops_at_20_percent": bool(fifth.stop_reason),
        "stop_reason": fifth.stop_reason,
        "dead_letters_at_20_percent": len(fifth.letters),
        "committed_at_20_percent": fifth.committed,
        "stopped_after_s": round(fifth.seconds, 2),
    }


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="only the JSON object (it is all there is)")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--pairs", type=int, default=2)
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder, running_front(Path(folder)) as front:
        found = asyncio.run(measure(front.store_url, events=asked.events, pairs=asked.pairs))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
