"""A retriever process over a store that was filled through its adapter, and what a stand for `search.py` is.

Used by `_search_lancedb.py` and `_search_weaviate.py`. The retriever is `python -m services.retriever` with its own
settings but for a bus in memory; service and raw work use the same embedder settings.
"""

import asyncio
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from binnacle.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub
from servicekit.ports.embedder import Vector
from servicekit.ports.vector_store import VectorStore
from servicekit.rpc.api_keys import create_key
from servicekit.rpc.client import open_channel
from servicekit.rpc.init_keys import API_KEYS
from services.local.layout import HOST, Layout, choose_ports
from services.local.process import Command, SupervisedProcess
from tests.bench._search_corpus import SearchCorpus

EMBEDDER_URL = "onnx://minilm?precision=int8"
SMALL_TENANT = "small"
TOP_K = 8
_BATCH = 1_000
_READY_S = 120.0

RawSearch = Callable[[str, Vector, int], Awaitable[list[str]]]


@dataclass(frozen=True)
class Tenants:
    """The stubs of both tenants, and the bare search of each: text, vector, how many; chunk ids."""

    large: RetrieverServiceStub
    small: RetrieverServiceStub
    raw_large: RawSearch
    raw_small: RawSearch


async def fill(store: VectorStore, tenant: str, corpus: SearchCorpus, *, chunks: int, model: str) -> None:
    """Write the first chunks of the corpus as this tenant's."""
    began_s = time.monotonic()
    for start in range(0, chunks, _BATCH):
        end = min(start + _BATCH, chunks)
        revisions = await asyncio.to_thread(corpus.revisions, start, end)
        await store.replace_documents(tenant, revisions, model=model)
        if end % 20_000 == 0:
            tell(f"{end} chunks written, {time.monotonic() - began_s:.0f} s")


@asynccontextmanager
async def running_retriever(
    folder: Path, store_url: str
) -> AsyncIterator[tuple[RetrieverServiceStub, RetrieverServiceStub]]:
    ports = choose_ports({}, free=True)
    prefix = "BINNACLE_RETRIEVER__"
    overrides = {f"{prefix}VECTOR_STORE_URL": store_url, f"{prefix}EMBEDDER_URL": EMBEDDER_URL}
    layout = Layout(folder, ports, overrides=overrides)
    key = layout.prepare()
    _, small_key = create_key(layout.secret(API_KEYS), tenant=SMALL_TENANT, scopes=("*",))
    env = layout.environment("retriever", event_bus_url="memory://")
    ready = partial(asyncio.to_thread, _answers, ports["retriever.metrics"])
    command = Command("retriever", [sys.executable, "-m", "services.retriever"], env, ready, ready_within_s=_READY_S)
    process = SupervisedProcess(command, log_dir=layout.log_dir, say=tell)
    await process.start()
    watching = asyncio.ensure_future(process.watch())
    try:
        address = ports.address("retriever")
        async with (
            open_channel(address, audience="retriever", api_key=key) as large,
            open_channel(address, audience="retriever", api_key=small_key) as small,
        ):
            yield RetrieverServiceStub(large), RetrieverServiceStub(small)
    finally:
        await process.stop()
        await watching


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/healthz", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def tell(line: str) -> None:
    """Progress, on standard error."""
    print(f"search: {line}", file=sys.stderr, flush=True)
