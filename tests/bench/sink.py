"""How fast a full topic gets into ClickHouse, beside the engine alone and a bare consumer, and in how much memory.

`python -m tests.bench.sink --json`. A real Kafka, the embedded ClickHouse with all its tables, and the analytics
service, each a process of its own on one machine. Each round fills the topic with fresh interactions of 0.8 to 1.2 KB;
then, one after the other: a bare aiokafka consumer reads them, the engine takes the same rows in equal batches straight
from memory into a database like the service's, and the service stores them. Rates are medians over the rounds. Then the
topic is filled with five million, and the service started afresh on an empty store. `cpu_us_per_event` is the service's
own; ClickHouse's, with inserts, merges, rollups and the ledger, is `front_cpu_us_per_event`.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from servicekit.adapters.clickhouse.analytics_store import open_analytics_store
from servicekit.adapters.kafka.topic_setup import create_missing_topics
from servicekit.events.topics import INTERACTION_COMPLETED, TOPICS
from services.analytics.config import Settings
from services.analytics.migrations import migrate, read_migrations
from services.analytics.record_bytes import RowEncoder
from services.analytics.tables import read_tables
from services.local.layout import choose_ports
from services.local.native_kafka import NativeKafka
from services.local.native_server import running_server
from tests.bench._interactions import PARTITIONS, BenchEvent, describe, interactions
from tests.bench._sink_stand import Counter, EngineAlone, Usage, fill, running_sink, usage
from tests.clickhouse_process import FrontProcess, running_front

_BATCH = Settings.model_fields["batch_rows"].default
_STEP_US = 6_000  # ten thousand interactions a minute
_MILLION = 1_000_000
_WITHIN_S = 900.0


@dataclass
class Rates:
    """Events per second of each round, and microseconds of CPU per event."""

    consumer: list[float] = field(default_factory=list)
    engine: list[float] = field(default_factory=list)
    sink: list[float] = field(default_factory=list)
    sink_cpu_us: list[float] = field(default_factory=list)
    front_cpu_us: list[float] = field(default_factory=list)
    engine_cpu_us: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Stand:
    """What a run works on."""

    folder: Path
    broker: str
    start_us: int

    def events(self, count: int, *, first: int) -> list[BenchEvent]:
        """Fresh events, from number `first` on."""
        return list(interactions(count, start_us=self.start_us, step_us=_STEP_US, first=first))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the last line of standard output is one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sink", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds (default 5)")
    parser.add_argument("--events", type=int, default=300_000, help="events a round (default 300,000)")
    parser.add_argument(
        "--millions", type=int, default=5, help="millions of events for the memory (default 5; 0: none)"
    )
    parser.add_argument("--json", action="store_true", help="accepted for the sake of uniformity: JSON is always last")
    options = parser.parse_args(arguments)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    with tempfile.TemporaryDirectory(prefix="binnacle-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        ports = choose_ports({}, free=True)
        native = NativeKafka(folder / "kafka", ports["kafka"], ports["kafka.controller"])
        _tell("starting a Kafka")
        stack.enter_context(running_server(native))
        asyncio.run(create_missing_topics([native.address]))
        stand = Stand(folder, native.address, time.time_ns() // 1000 - 6 * 3600 * _MILLION)
        result = _compare(stand, rounds=options.rounds, events=options.events)
        if options.millions:
            result |= _long_run(stand, millions=options.millions, first=options.rounds * options.events)
    print(json.dumps(result))
    return 0


def _compare(stand: Stand, *, rounds: int, events: int) -> dict[str, object]:
    """The alternating rounds."""
    insert = _prepare_engine(stand.folder)
    engine = EngineAlone(stand.folder / "engine" / "data", insert)
    rates = Rates()
    with running_front(stand.folder / "front") as front:
        asyncio.run(_migrate(front))
        for number in range(rounds):
            batch = stand.events(events, first=number * events)
            if number == 0:
                _tell(f"{events} events a round: {describe(batch)}")
            fill(stand.broker, batch)
            _round(stand, engine, front, batch, rates, stored=number * events)
            _tell(
                f"round {number + 1} of {rounds}: sink {rates.sink[-1]:.0f}/s, engine {rates.engine[-1]:.0f}/s, "
                f"consumer {rates.consumer[-1]:.0f}/s; CPU µs an event: sink {rates.sink_cpu_us[-1]:.1f}, "
                f"front {rates.front_cpu_us[-1]:.1f}, engine {rates.engine_cpu_us[-1]:.1f}"
            )
    engine.close()
    medians = {name: statistics.median(values) for name, values in vars(rates).items()}
    return {
        "events_per_s": round(medians["sink"]),
        "engine_events_per_s": round(medians["engine"]),
        "consumer_events_per_s": round(medians["consumer"]),
        "ratio": round(
            statistics.median(
                sink / min(engine, consumer)
                for sink, engine, consumer in zip(rates.sink, rates.engine, rates.consumer, strict=True)
            ),
            3,
        ),
        "cpu_us_per_event": round(medians["sink_cpu_us"], 1),
        "front_cpu_us_per_event": round(medians["front_cpu_us"], 1),
        "engine_cpu_us_per_event": round(medians["engine_cpu_us"], 1),
        "rounds": rounds,
        "events": events,
        "batch_rows": _BATCH,
    }


def _round(
    stand: Stand, engine: EngineAlone, front: FrontProcess, batch: list[BenchEvent], rates: Rates, *, stored: int
) -> None:
    count = len(batch)
    rates.consumer.append(asyncio.run(_consume(stand.broker, count=count, skip=stored)))
    seconds, cpu_s = engine.insert(_rows(stand.folder, batch))
    rates.engine.append(count / seconds)
    rates.engine_cpu_us.append(cpu_s / count * _MILLION)
    batch.clear()
    _store(stand, front, rates, count=count, stored=stored)


def _store(stand: Stand, front: FrontProcess, rates: Rates, *, count: int, stored: int) -> None:
    """The service stores what is new; timed from its first batch on, its start left out."""
    counter = Counter(front)
    with running_sink(front, stand.broker, stand.folder) as sink:
        began = counter.wait_for(stored + 1, within_s=_WITHIN_S)
        first, before = counter.rows() - stored, _both(sink, front)
        ended = counter.wait_for(stored + count, within_s=_WITHIN_S)
        after = _both(sink, front)
    timed = count - first
    rates.sink.append(timed / (ended - began))
    rates.sink_cpu_us.append((after[0].cpu_s - before[0].cpu_s) / timed * _MILLION)
    rates.front_cpu_us.append((after[1].cpu_s - before[1].cpu_s) / timed * _MILLION)


def _long_run(stand: Stand, *, millions: int, first: int) -> dict[str, object]:
    """Memory at one million and at the end, and the sustained rate with merges and rollups."""
    count = millions * _MILLION
    _tell(f"filling the topic with {millions} million events")
    fill(stand.broker, interactions(count, start_us=stand.start_us, step_us=_STEP_US, first=first))
    with running_front(stand.folder / "long") as front:
        asyncio.run(_migrate(front))
        counter = Counter(front)
        with running_sink(front, stand.broker, stand.folder) as sink:
            began = counter.wait_for(1, within_s=_WITHIN_S)
            before = _both(sink, front)
            counter.wait_for(_MILLION, within_s=_WITHIN_S)
            at_one = _both(sink, front)
            _tell(f"1 million: sink {at_one[0].peak_rss_mb:.0f} MB, front {at_one[1].peak_rss_mb:.0f} MB")
            ended = counter.wait_for(count, within_s=_WITHIN_S)
            at_end = _both(sink, front)
            _tell(f"{millions} million: sink {at_end[0].peak_rss_mb:.0f} MB, front {at_end[1].peak_rss_mb:.0f} MB")
            cpu_us = [(b.cpu_s - a.cpu_s) / count * _MILLION for a, b in zip(before, at_end, strict=True)]
            rollup = _rollup(counter, count)
        collapsed = int(counter.ask("SELECT count() FROM interactions"))
    return {
        "peak_rss_mb_1m": round(at_one[0].peak_rss_mb, 1),
        f"peak_rss_mb_{millions}m": round(at_end[0].peak_rss_mb, 1),
        "front_rss_mb_1m": round(at_one[1].peak_rss_mb),
        f"front_rss_mb_{millions}m": round(at_end[1].peak_rss_mb),
        "sustained_events_per_s": round(count / (ended - began)),
        "sustained_cpu_us_per_event": round(cpu_us[0], 1),
        "sustained_front_cpu_us_per_event": round(cpu_us[1], 1),
        "stored": collapsed,
        "rollup": rollup,
    }


def _rollup(counter: Counter, count: int) -> int:
    """Requests in the rollup, once it has caught up or a minute is over."""
    give_up = time.monotonic() + 60
    while (counted := int(counter.ask("SELECT sum(requests) FROM usage_by_minute"))) < count:
        if time.monotonic() > give_up:
            break
        time.sleep(1)
    return counted


def _both(sink: int, front: FrontProcess) -> tuple[Usage, Usage]:
    assert front.process is not None
    return usage(sink), usage(front.process.pid)


async def _consume(broker: str, *, count: int, skip: int) -> float:
    """Events per second of a bare consumer that fetches as the sink does and looks at nothing."""
    consumer = AIOKafkaConsumer(bootstrap_servers=broker, enable_auto_commit=False, fetch_max_wait_ms=100)
    await consumer.start()
    try:
        partitions = [TopicPartition(INTERACTION_COMPLETED, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        for partition, end in (await consumer.end_offsets(partitions)).items():
            consumer.seek(partition, end - count // len(partitions) if skip else 0)
        read, began = 0, time.perf_counter()
        while read < count - len(partitions):
            fetched = await consumer.getmany(timeout_ms=1000, max_records=500)
            read += sum(len(records) for records in fetched.values())
        return read / (time.perf_counter() - began)
    finally:
        await consumer.stop()


def _rows(folder: Path, batch: Sequence[BenchEvent]) -> list[Path]:
    """The rows that the sink would insert, in files of its batch size."""
    encoder = RowEncoder(INTERACTION_COMPLETED, message_name=TOPICS[INTERACTION_COMPLETED].message)
    files = []
    now_ms = time.time_ns() // 1_000_000
    for start in range(0, len(batch), _BATCH):
        path = folder / f"rows-{start}.bin"
        with path.open("wb") as out:
            for number, event in enumerate(batch[start : start + _BATCH], start=start):
                record: ConsumerRecord[bytes, bytes] = ConsumerRecord(
                    INTERACTION_COMPLETED, event.partition, number // PARTITIONS, now_ms, 0, event.key, event.value,
                    None, len(event.key), len(event.value), event.headers,
                )  # fmt: skip
                out.writelines(encoder.encode(record))
        files.append(path)
    return files


def _prepare_engine(folder: Path) -> Path:
    """A migrated database for the engine alone; the file that says how to insert into it."""
    with running_front(folder / "engine") as front:
        insert = asyncio.run(_migrate(front))
    path = folder / "insert.json"
    path.write_text(json.dumps(insert), encoding="utf-8")
    return path


async def _migrate(front: FrontProcess) -> dict[str, object]:
    async with open_analytics_store(front.store_url) as store:
        await store.create_database()
        await migrate(store, read_migrations(Settings().migrations_dir))
        table = (await read_tables(store))[INTERACTION_COMPLETED]
    return {"sql": table.insert_sql, "settings": dict(table.settings)}


def _tell(line: str) -> None:
    print(f"sink: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
