"""The processes that the benchmark of the sink measures: a real broker, the ClickHouse front, the analytics service.

Used by `sink.py`, which decides what is sent and when; everything is on loopback and stopped by its process id.
"""

import json
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from confluent_kafka import Producer

from servicekit.events.topics import INTERACTION_COMPLETED
from tests.bench._interactions import BenchEvent
from tests.clickhouse_process import FrontProcess

_FLUSH_S = 120.0


def fill(broker: str, events: Iterable[BenchEvent]) -> int:
    """Put the events on the topic, spread evenly over its partitions; how many they were."""
    producer = Producer({
        "bootstrap.servers": broker, "acks": "all", "compression.type": "lz4", "linger.ms": 50,
        "queue.buffering.max.messages": 200_000,
    })  # fmt: skip
    failed: list[str] = []

    def note(error: object, _message: object) -> None:
        if error is not None:
            failed.append(str(error))

    count = 0
    for count, event in enumerate(events, start=1):
        if count % 1000 == 0:
            producer.poll(0)
        while True:
            try:
                producer.produce(
                    INTERACTION_COMPLETED, event.value, event.key, event.partition,
                    headers=list(event.headers), on_delivery=note,
                )  # fmt: skip
            except BufferError:
                producer.poll(0.1)
            else:
                break
    left = producer.flush(_FLUSH_S)
    if left or failed:
        raise RuntimeError(f"the topic was not filled: {left} not sent, {len(failed)} refused, {failed[:1]}")
    return count


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds so far and the most memory held so far."""

    cpu_s: float
    peak_rss_mb: float


def usage(pid: int) -> Usage:
    """What a process has used, its threads included."""
    times = psutil.Process(pid).cpu_times()
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    peak_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return Usage(times.user + times.system, peak_kb / 1024)


@contextmanager
def running_sink(front: FrontProcess, broker: str, folder: Path) -> Iterator[int]:
    """The analytics service as it is run in production; its process id."""
    settings = {
        "event_bus_url": f"kafka://{broker}?instance=bench",
        "analytics_store_url": front.store_url,
        "port": "0",
        "metrics_port": "0",
        "state_dir": str(folder),
        "log_level": "warning",
    }
    environment = {f"BINNACLE_ANALYTICS__{name.upper()}": value for name, value in settings.items()}
    log_path = folder / "analytics.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.analytics"],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(60)
        failures = log_path.read_text(encoding="utf-8").count("sink.store_failed")
        if failures:
            print(f"sink: {failures} attempts to store a batch failed and were repeated", file=sys.stderr, flush=True)


class Counter:
    """Asks the front how many rows there are, without disturbing it much."""

    def __init__(self, front: FrontProcess) -> None:
        self._front = front

    def ask(self, sql: str) -> str:
        """One value."""
        query = urllib.parse.urlencode({"query": sql, "database": "binnacle"})
        with urllib.request.urlopen(f"{self._front.http_url}/?{query}", timeout=120) as answer:
            return str(answer.read().decode().strip())

    def rows(self) -> int:
        """Rows stored, copies included; read from the parts' headers."""
        return int(self.ask("SELECT count() FROM interactions_raw"))

    def wait_for(self, count: int, *, within_s: float) -> float:
        """Until so many rows are stored; the moment at which they were seen."""
        give_up = time.monotonic() + within_s
        while (rows := self.rows()) < count:
            if time.monotonic() > give_up:
                raise TimeoutError(f"{rows} of {count} rows were stored within {within_s:g} s")
            time.sleep(0.2)  # each question costs the front some milliseconds
        return time.perf_counter()


class EngineAlone:
    """The engine without anything around it, in a process of its own on a database like the front's."""

    def __init__(self, data: Path, insert: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench._engine_inserts", str(data), str(insert)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == "ready"

    def insert(self, files: Iterable[Path]) -> tuple[float, float]:
        """Seconds and CPU seconds for these batches."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, files)) + "\n")
        self._process.stdin.flush()
        seconds, cpu_s = json.loads(self._process.stdout.readline())
        return seconds, cpu_s

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
