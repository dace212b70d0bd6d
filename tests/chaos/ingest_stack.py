"""A retriever on the native Kafka, with proxies between them, and whatever vector store is asked for.

Opened by `ingest.py`. Broker and retriever are supervised: what was killed is back soon, with the same data.
"""

import asyncio
import dataclasses
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from binnacle.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub
from servicekit.events.topics import DOCUMENT_INDEXED
from servicekit.rpc.client import open_channel
from services.local.layout import Layout, choose_ports, inherited_environment
from services.local.native_kafka import Listener, NativeKafka
from services.local.process import Command, SupervisedProcess
from tests.chaos.ingest_aims import Aim, Victim
from tests.chaos.proxies import HOST, CommitWatch, ProduceWatch, Trap, open_proxy

_MAX_BACKOFF_S = 0.5
_HTTP_OK = 200


@dataclass(frozen=True)
class IngestStack:
    """The running processes by name, the traps in the proxies, and a stub for callers."""

    processes: Mapping[Victim, SupervisedProcess]
    traps: Mapping[Aim, Trap]
    kafka: NativeKafka
    stub: RetrieverServiceStub


@asynccontextmanager
async def open_ingest_stack(
    folder: Path, *, store_url: str, embedder_url: str, say: Callable[[str], None]
) -> AsyncIterator[IngestStack]:
    """Broker and retriever, ready for documents."""
    ports = choose_ports({}, free=True)
    traps = {Aim.PUBLISH: Trap(), Aim.COMMIT: Trap()}
    async with AsyncExitStack() as opened:
        inner = ports["gateway"]  # of all that was chosen, one that nobody uses here
        committing = await opened.enter_async_context(
            open_proxy(lambda: inner, watch=CommitWatch, trap=traps[Aim.COMMIT])
        )
        outer = await opened.enter_async_context(
            open_proxy(lambda: committing, watch=partial(ProduceWatch, DOCUMENT_INDEXED), trap=traps[Aim.PUBLISH])
        )
        kafka = NativeKafka(
            folder / "kafka", ports["kafka"], ports["kafka.controller"], (Listener("WATCHED", inner, outer),)
        )
        overrides = {"BINNACLE_RETRIEVER__EMBEDDER_URL": embedder_url, "BINNACLE_RETRIEVER__LOG_LEVEL": "debug"}
        if store_url:
            overrides["BINNACLE_RETRIEVER__VECTOR_STORE_URL"] = store_url
        layout = Layout(folder, ports, overrides=overrides)
        api_key = layout.prepare()
        broker = Command(
            "broker",
            await asyncio.to_thread(kafka.prepare),
            inherited_environment(),
            partial(asyncio.to_thread, kafka.answers),
        )
        processes = {Victim.BROKER: broker, Victim.RETRIEVER: _retriever(layout, bus=f"kafka://{HOST}:{outer}")}
        supervised = {
            name: await opened.enter_async_context(_supervised(one, layout, say)) for name, one in processes.items()
        }
        channel = await opened.enter_async_context(
            open_channel(ports.address("retriever"), audience="retriever", api_key=api_key)
        )
        yield IngestStack(supervised, traps, kafka, RetrieverServiceStub(channel))


def _retriever(layout: Layout, *, bus: str) -> Command:
    # A static member is back without waiting for its predecessor's session.
    env = layout.environment("retriever", event_bus_url=f"{bus}?instance=chaos")
    port = layout.ports["retriever.metrics"]
    return Command("retriever", [sys.executable, "-m", "services.retriever"], env, partial(_answers, port))


@asynccontextmanager
async def _supervised(command: Command, layout: Layout, say: Callable[[str], None]) -> AsyncIterator[SupervisedProcess]:
    process = SupervisedProcess(
        dataclasses.replace(command, max_backoff_s=_MAX_BACKOFF_S), log_dir=layout.log_dir, say=say
    )
    try:
        await process.start()
        watching = asyncio.ensure_future(process.watch())
        try:
            yield process
        finally:
            await process.stop()
            await watching
    finally:
        await process.stop()


async def _answers(port: int) -> bool:
    def ask() -> bool:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/healthz", timeout=2) as response:
                return bool(response.status == _HTTP_OK)
        except (OSError, urllib.error.URLError):
            return False

    return await asyncio.to_thread(ask)
