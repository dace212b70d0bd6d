"""Buses on one Kafka, for the conformance suite of the event bus.

Used by the contract tests of the Kafka adapter, whichever broker they run against.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from servicekit.adapters.kafka.event_bus import KafkaEventBus, open_event_bus
from servicekit.domain.identity import new_identity
from servicekit.events.dead_letters import Record
from servicekit.events.lanes import Backoff
from servicekit.ports.clock import SystemClock


class KafkaHarness:
    """What `EventBusConformance` asks for; its buses close with `stack`."""

    def __init__(self, bootstrap: str, stack: AsyncExitStack) -> None:
        self.bootstrap = bootstrap
        self._stack = stack

    async def connect(self, options: str = "") -> KafkaEventBus:
        """A new bus, `options` such as `?session_s=6` added to its URL."""
        return await self._stack.enter_async_context(
            open_event_bus(
                f"kafka://{self.bootstrap}{options}",
                identity=new_identity("gateway", start_time=datetime.now(UTC)),
                clock=SystemClock(),
                backoff=Backoff(initial_s=0.01, max_s=0.1),
            )
        )

    async def append_raw(
        self, topic: str, *, key: bytes | None, value: bytes, headers: tuple[tuple[str, bytes], ...]
    ) -> None:
        """Put a record on a topic as a foreign producer would."""
        async with AIOKafkaProducer(bootstrap_servers=self.bootstrap) as producer:
            await producer.send_and_wait(topic, value, key=key, headers=list(headers))

    async def read_all(self, topic: str, *, count: int) -> Sequence[Record]:
        """The first `count` records of a topic."""
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=self.bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=50
        )
        async with consumer, asyncio.timeout(20):
            return [_record(await consumer.getone()) for _ in range(count)]


def _record(found: object) -> Record:
    names = ("topic", "partition", "offset", "key", "value")
    return Record(
        **{name: getattr(found, name) for name in names},
        headers=tuple(found.headers),
        time=datetime.fromtimestamp(found.timestamp / 1000, tz=UTC),
    )


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def broker_process(port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """The embedded broker as a process of its own behind a doorway, to be killed, stopped or started again."""
    argv = (sys.executable, "-m", "services.local.broker", "--port", str(port))
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = await process.stdout.readline()
        assert line.startswith(b"broker ready"), line
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.communicate()
