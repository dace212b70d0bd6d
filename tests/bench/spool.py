"""What publishing costs with Kafka there and away, and how fast what was spooled reaches Kafka again.

Run as `python -m tests.bench.spool --json`. The embedded broker runs as a process of its own and is killed for the
outage; events are realistic interactions. Publishes come from 16 callers that wait for each.
"""

import argparse
import asyncio
import json
import logging
import statistics
import sys
import tempfile
import time
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import structlog

from binnacle.events.v1.interaction_completed_pb2 import InteractionCompleted
from servicekit.adapters.kafka.event_bus import KafkaEventBus, open_event_bus
from servicekit.domain.identity import new_identity
from servicekit.events.topics import INTERACTION_COMPLETED
from servicekit.ports.clock import SystemClock
from servicekit.ports.event_bus import OutgoingEvent
from tests.kafka_harness import broker_process, free_port

_CALLERS = 16
_PATIENCE_S = 120


async def measure(*, events: int, folder: Path) -> dict[str, float]:
    """Publish with Kafka, without it, and drain."""
    port, numbers = free_port(), count(1)
    bootstrap = f"127.0.0.1:{port}"
    async with broker_process(port) as broker:
        async with _open(bootstrap, None) as bus:
            await _publish(bus, numbers, events=events // 10)
            plain = await _publish(bus, numbers, events=events)
        async with _open(bootstrap, folder) as bus:
            await _publish(bus, numbers, events=events // 10)
            there = await _publish(bus, numbers, events=events)
            broker.kill()
            await broker.wait()
            away = await _publish(bus, numbers, events=events)
            spooled_bytes = bus._spool._bytes
            async with broker_process(port):
                while bus._sessions.usable() is None:
                    await asyncio.sleep(0.001)
                begun_s = time.perf_counter()
                async with asyncio.timeout(_PATIENCE_S):
                    while bus._spool.lanes():
                        await asyncio.sleep(0.001)
                drain_s = time.perf_counter() - begun_s
    return {
        "events": events,
        "event_bytes": round(spooled_bytes / events),
        **_tell("without_spool", plain),
        **_tell("with_spool", there),
        **_tell("kafka_away", away),
        "kafka_away_max_ms": round(max(away) * 1e3, 1),
        "drained_per_s": round(events / drain_s),
    }


def _open(bootstrap: str, folder: Path | None) -> AbstractAsyncContextManager[KafkaEventBus]:
    return open_event_bus(
        f"kafka://{bootstrap}",
        identity=new_identity("gateway", start_time=datetime.now(UTC)),
        clock=SystemClock(),
        spool_dir=folder,
    )


async def _publish(bus: KafkaEventBus, numbers: "count[int]", *, events: int) -> list[float]:
    """How long each publish took, in seconds, ascending."""
    taken_s: list[float] = []

    async def call() -> None:
        while len(taken_s) < events:
            event = _interaction(next(numbers))
            begun_s = time.perf_counter()
            await bus.publish(event)
            taken_s.append(time.perf_counter() - begun_s)

    async with asyncio.TaskGroup() as group:
        for _ in range(_CALLERS):
            group.create_task(call())
    return sorted(taken_s)


def _interaction(number: int) -> OutgoingEvent:
    name = f"request-{number}"
    message = InteractionCompleted(
        request_id=name, tenant_id="acme", query="Are dicts ordered?" * 4, answer="Yes. " * 80
    )
    return OutgoingEvent(INTERACTION_COMPLETED, name, name, "acme", message)


def _tell(name: str, taken_s: list[float]) -> dict[str, float]:
    return {
        f"{name}_p50_ms": round(statistics.median(taken_s) * 1e3, 3),
        f"{name}_p99_ms": round(taken_s[int(len(taken_s) * 0.99)] * 1e3, 3),
    }


def main() -> None:
    """Measure and print; with `--json` one line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.spool", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--events", type=int, default=20_000, help="in each phase")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measure(events=given.events, folder=Path(folder)))
    sys.stdout.write(json.dumps(figures, indent=None if given.json else 1) + "\n")


if __name__ == "__main__":
    main()
