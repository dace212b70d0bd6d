"""A retriever on the native Kafka, with proxies between them, a guardrail, and the vector store that is asked for.

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
from enum import StrEnum
from functools import partial
from pathlib import Path

from binnacle.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub
from servicekit.events.topics import DOCUMENT_INDEXED
from servicekit.rpc.client import open_channel
from servicekit.rpc.init_keys import TOKEN_PRIVATE_KEY
from services.local.layout import Layout, Ports, choose_ports
from services.local.native_kafka import Listener, NativeKafka
from services.local.native_weaviate import on_ports
from services.local.process import Command, SupervisedProcess
from services.local.supervisor import native_command
from tests.chaos.ingest_aims import Aim, Victim
from tests.chaos.proxies import HOST, CommitWatch, ProduceWatch, Trap, open_proxy

_MAX_BACKOFF_S = 0.5
_HTTP_OK = 200


class Store(StrEnum):
    """The vector stores that outlive a kill."""

    LANCEDB = "lancedb"
    WEAVIATE = "weaviate"


@dataclass(frozen=True)
class IngestStack:
    """The processes that may be killed, the traps in the proxies, a stub for callers, and a folder to fetch from."""

    processes: Mapping[Victim, SupervisedProcess]
    traps: Mapping[Aim, Trap]
    kafka: NativeKafka
    stub: RetrieverServiceStub
    files: Path


@asynccontextmanager
async def open_ingest_stack(
    folder: Path, *, store: Store, embedder_url: str, say: Callable[[str], None]
) -> AsyncIterator[IngestStack]:
    """Broker, guardrail and retriever, ready for documents."""
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
        files = folder.resolve() / "files"
        weaviate = on_ports(folder / "weaviate", ports.by_name) if store is Store.WEAVIATE else None
        store_url = weaviate.url if weaviate else f"lancedb://{folder.resolve()}/lancedb"
        layout = Layout(folder, ports, overrides=_overrides(folder, ports, files, store_url, embedder_url))
        api_key = layout.prepare()
        files.mkdir(exist_ok=True)
        supervised: dict[Victim, SupervisedProcess] = {}
        broker = await native_command("broker", kafka)
        supervised[Victim.BROKER] = await opened.enter_async_context(_supervised(broker, layout, say))
        if weaviate is not None:
            command = await native_command("weaviate", weaviate)
            await opened.enter_async_context(_supervised(command, layout, say))
        guardrail = _service(layout, "guardrail", bus=f"kafka://{kafka.address}")
        await opened.enter_async_context(_supervised(guardrail, layout, say))
        # A static member is back without waiting for its predecessor's session.
        retriever = _service(layout, "retriever", bus=f"kafka://{HOST}:{outer}?instance=chaos")
        supervised[Victim.RETRIEVER] = await opened.enter_async_context(_supervised(retriever, layout, say))
        channel = await opened.enter_async_context(
            open_channel(ports.address("retriever"), audience="retriever", api_key=api_key)
        )
        yield IngestStack(supervised, traps, kafka, RetrieverServiceStub(channel), files)


def _overrides(folder: Path, ports: Ports, files: Path, store_url: str, embedder_url: str) -> Mapping[str, str]:
    settings = {
        "embedder_url": embedder_url,
        "fetch_allowed_prefixes": files.as_uri(),
        "guardrail_target": ports.address("guardrail"),
        "ingest_guard": "flag",
        "log_level": "debug",  # the steps are logged so; kills are aimed by them
        "token_private_key_file": str(folder.resolve() / "secrets" / TOKEN_PRIVATE_KEY),
        "vector_store_url": store_url,
    }
    return {f"BINNACLE_RETRIEVER__{name.upper()}": value for name, value in settings.items()}


def _service(layout: Layout, name: str, *, bus: str) -> Command:
    env = layout.environment(name, event_bus_url=bus)
    port = layout.ports[f"{name}.metrics"]
    return Command(name, [sys.executable, "-m", f"services.{name}"], env, partial(_answers, port))


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
