"""What the benchmarks of ingestion measure: the retriever as a process of its own, fed by a broker over its topic.

Used by `ingest.py` and `ingest_files.py`; everything is on loopback and stopped by its process id.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from binnacle.events.v1.document_indexed_pb2 import DocumentIndexed
from binnacle.events.v1.document_submitted_pb2 import DocumentSubmitted
from servicekit.adapters.registry import open_event_bus
from servicekit.domain.envelope import ReceivedEvent
from servicekit.domain.identity import new_identity
from servicekit.events.codec import decode
from servicekit.events.topics import DOCUMENT_INDEXED, DOCUMENT_SUBMITTED
from servicekit.ports.clock import SystemClock
from servicekit.ports.event_bus import EventBus, OutgoingEvent, Subscription
from services.local.broker import run_broker

TENANT = "bench"
EMBEDDER_URL = "onnx://minilm?precision=int8&threads=2"


@dataclass
class Stand:
    """A running retriever; `told` holds what it told of documents, the last word on each."""

    pid: int
    bus: EventBus
    told: dict[str, DocumentIndexed] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def submit(self, documents: Sequence[DocumentSubmitted]) -> None:
        """Put them on the topic, acknowledged."""
        for document in documents:
            event = OutgoingEvent(DOCUMENT_SUBMITTED, document.document_id, document.document_id, TENANT, document)
            await self.bus.publish(event)

    async def wait_for(self, document_ids: Sequence[str], *, within_s: float) -> float:
        """Until all of them are told of; the moment of the last."""
        wanted = set(document_ids)
        async with asyncio.timeout(within_s):
            while not wanted <= self.told.keys():
                self.changed.clear()
                await self.changed.wait()
        return time.perf_counter()

    def peak_rss_mb(self) -> float:
        """The most memory that the retriever has held so far."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024

    def cpu_s(self) -> float:
        """What it has computed so far, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def _hear(self, event: ReceivedEvent) -> None:
        message = decode(event, DocumentIndexed)
        self.told[message.document_id] = message
        self.changed.set()


@asynccontextmanager
async def running_stand(folder: Path, **settings: str) -> AsyncIterator[Stand]:
    """A broker and a retriever with an empty LanceDB; further settings of the retriever by name."""
    async with run_broker() as broker:
        url = f"kafka://{broker.bootstrap}"
        clock = SystemClock()
        identity = new_identity("bench", start_time=datetime.now(UTC))
        with _retriever(folder, event_bus_url=url, **settings) as process:
            async with open_event_bus(url, identity=identity, clock=clock) as bus:
                stand = Stand(process.pid, bus)
                bus.subscribe(Subscription(topic=DOCUMENT_INDEXED, group="bench", handle=stand._hear))
                await bus.start_consuming()
                yield stand
                await bus.stop_consuming()


class _retriever:  # noqa: N801  # a context manager with a process in it
    def __init__(self, folder: Path, **settings: str) -> None:
        self._log = folder / "retriever.log"
        given = {
            "vector_store_url": f"lancedb://{folder}/index",
            "embedder_url": EMBEDDER_URL,
            "port": "0",
            "metrics_port": "0",
            "state_dir": str(folder),
            "log_level": "warning",
        } | settings
        self._environment = {f"BINNACLE_RETRIEVER__{name.upper()}": value for name, value in given.items()}

    def __enter__(self) -> "subprocess.Popen[bytes]":
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.retriever"],
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self._process

    def __exit__(self, *_failure: object) -> None:
        self._process.terminate()
        self._process.wait(60)
        lines = self._log.read_text(encoding="utf-8").splitlines()
        if lines:
            print(f"retriever: {len(lines)} lines logged, the last: {lines[-1][:300]}", file=sys.stderr, flush=True)
