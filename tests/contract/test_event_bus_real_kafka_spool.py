"""A real Kafka that is killed, hangs and comes back on its data, under load: nothing fails, nothing is lost."""

import asyncio
import signal
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer

from servicekit.adapters.kafka.event_bus import KafkaEventBus, open_event_bus
from servicekit.domain.envelope import Envelope
from servicekit.domain.identity import new_identity
from servicekit.events.codec import decode_headers
from servicekit.ports.clock import SystemClock
from servicekit.testing.conformance.event_bus import TOPIC, feedback
from services.local.layout import choose_ports
from services.local.native_install import obstacle
from services.local.native_kafka import NativeKafka
from services.local.native_server import start_server

pytestmark = [pytest.mark.servers, pytest.mark.skipif(bool(obstacle()), reason=str(obstacle()))]


@pytest.fixture
def native(tmp_path: Path) -> Iterator[NativeKafka]:
    """A broker of its own, not yet started."""
    ports = choose_ports({}, free=True)
    return NativeKafka(tmp_path / "kafka", ports["kafka"], ports["kafka.controller"])


class _Load:
    """Publishes about 200 events/s until it is stopped; keeps how long each took and what failed."""

    def __init__(self, bus: KafkaEventBus) -> None:
        self._bus = bus
        self.waits_s: list[float] = []
        self.failed: list[BaseException] = []
        self.count = 0

    async def run(self, stopped: asyncio.Event) -> None:
        """Publish until told to stop; returns when all are done."""
        async with asyncio.TaskGroup() as group:
            while not stopped.is_set():
                group.create_task(self._one(self.count))
                self.count += 1
                await asyncio.sleep(0.005)

    async def _one(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        try:
            await self._bus.publish(feedback(f"e{number}", key=f"k{number % 11}"))
        except Exception as exc:  # noqa: BLE001  # counted
            self.failed.append(exc)
        self.waits_s.append(loop.time() - begun_s)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", ["kill", "hang"])
async def test_outage_under_load_fails_no_publish_and_loses_nothing(
    native: NativeKafka, tmp_path: Path, fault: str
) -> None:
    """All sequences of all partitions are there, first arrivals in order, and the ledger names no hole."""
    process = await asyncio.to_thread(start_server, native)
    try:
        async with open_event_bus(
            f"kafka://{native.address}",
            identity=new_identity("gateway", start_time=datetime.now(UTC)),
            clock=SystemClock(),
            spool_dir=tmp_path / "spool",
        ) as bus:
            load, stopped = _Load(bus), asyncio.Event()
            running = asyncio.create_task(load.run(stopped))
            await asyncio.sleep(1)
            if fault == "kill":
                process.kill()
                await asyncio.to_thread(process.wait)
                await asyncio.sleep(6)
                process = await asyncio.to_thread(start_server, native)
            else:
                process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(6)
                process.send_signal(signal.SIGCONT)
            await asyncio.sleep(1)
            async with asyncio.timeout(60):
                while bus._spool.lanes():
                    await asyncio.sleep(0.05)
            stopped.set()
            await running
            found = await _read(native.address)
            marks = {mark.partition: mark for mark in bus.ledger.marks()}
        assert load.failed == []
        assert sum(mark.accepted for mark in marks.values()) == load.count
        for partition, mark in marks.items():
            assert (mark.abandoned, mark.spooled) == ((), ())
            firsts = list(dict.fromkeys(one.sequence for one in found[partition]))
            assert firsts == list(range(1, mark.accepted + 1))
        copies = sum(len(one) for one in found.values()) - load.count
        print(f"{fault}: {load.count} events, {copies} of them twice, slowest publish {max(load.waits_s):.2f} s")
        assert max(load.waits_s) < 3.0
    finally:
        process.kill()
        process.wait()


async def _read(bootstrap: str) -> dict[int, list[Envelope]]:
    found = defaultdict[int, list[Envelope]](list)
    consumer = AIOKafkaConsumer(TOPIC, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    async with consumer, asyncio.timeout(30):
        ends = await consumer.end_offsets(list(consumer.assignment()))
        while any([await consumer.position(one) < end for one, end in ends.items()]):
            for partition, records in (await consumer.getmany(timeout_ms=100)).items():
                found[partition.partition] += [decode_headers(one.headers) for one in records]
    return found
