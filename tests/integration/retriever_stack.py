"""The retriever as a service for tests: its own wiring, real gRPC, vectors on disk, a bus in memory."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from binnacle.events.v1.document_indexed_pb2 import DocumentIndexed
from binnacle.retriever.v1 import retriever_service_pb2 as rpc
from binnacle.retriever.v1 import retriever_service_pb2_grpc as stubs
from binnacle.type.v1 import chunk_pb2
from servicekit.adapters.memory.event_bus import MemoryEventBus
from servicekit.errors import BinnacleError
from servicekit.events.topics import DOCUMENT_INDEXED
from servicekit.ports.event_bus import OutgoingEvent
from servicekit.rpc.status import to_error
from servicekit.runtime.service import Service, Stack
from servicekit.testing.in_process import Trust, channel_to, running_service
from services.retriever import bootstrap
from services.retriever.config import Settings


@dataclass
class Retriever:
    """A running retriever: its stub, and its bus to look into."""

    stub: stubs.RetrieverServiceStub
    bus: MemoryEventBus
    channel: grpc.aio.Channel = field(repr=False)

    def indexed(self) -> list[tuple[OutgoingEvent, DocumentIndexed]]:
        """What it told of documents, in order."""
        found = [event for event in self.bus.published if event.topic == DOCUMENT_INDEXED]
        return [(event, event.message) for event in found if isinstance(event.message, DocumentIndexed)]

    async def index(self, *documents: rpc.Document) -> rpc.IndexDocumentsResponse:
        """Index in one call."""
        return await self.stub.IndexDocuments(rpc.IndexDocumentsRequest(documents=documents))

    async def search(self, query: str, **options: object) -> rpc.SearchChunksResponse:
        """Search with any further fields of the request."""
        request = rpc.SearchChunksRequest(query=query, **options)  # type: ignore[arg-type]  # spelled at each call
        return await self.stub.SearchChunks(request)

    async def texts(self, query: str, **options: object) -> list[str]:
        """The texts that a search finds."""
        return [scored.chunk.text for scored in (await self.search(query, **options)).chunks]


@asynccontextmanager
async def running_retriever(
    folder: Path, *, embedder_url: str = "memory://", vector_store_url: str | None = None, **further: Any
) -> AsyncIterator[Retriever]:
    """A retriever whose files lie in `folder`, with any further settings."""
    trust = Trust.create(folder)
    settings = Settings(
        port=0,
        event_bus_url="memory://",
        vector_store_url=vector_store_url or f"lancedb://{folder}/index",
        embedder_url=embedder_url,
        token_public_key_file=trust.public_key_file,
        drain_s=0,
        grace_s=1,
        **further,
    )
    built: list[Service] = []

    async def build(given: Settings, stack: Stack) -> Service:
        built.append(await bootstrap.build(given, stack))
        return built[0]

    async with running_service(settings, build) as lifecycle, channel_to(lifecycle, trust) as channel:
        bus = built[0].bus
        assert isinstance(bus, MemoryEventBus)
        yield Retriever(stubs.RetrieverServiceStub(channel), bus, channel)


def make_document(
    document_id: str,
    text: str | bytes,
    *,
    title: str = "",
    media_type: str = "",
    source_uri: str = "",
    metadata: Mapping[str, str | int | float | bool] | None = None,
) -> rpc.Document:
    """A document as a caller hands it in."""
    values = {name: make_value(value) for name, value in (metadata or {}).items()}
    content = text.encode() if isinstance(text, str) else text
    return rpc.Document(
        document_id=document_id,
        title=title,
        media_type=media_type,
        content=content,
        source_uri=source_uri,
        metadata=values,
    )


def make_value(value: str | float | bool) -> chunk_pb2.MetadataValue:
    """A metadata value of the kind of its Python type."""
    if isinstance(value, bool):
        return chunk_pb2.MetadataValue(bool_value=value)
    if isinstance(value, int):
        return chunk_pb2.MetadataValue(int_value=value)
    if isinstance(value, float):
        return chunk_pb2.MetadataValue(double_value=value)
    return chunk_pb2.MetadataValue(string_value=value)


def make_filter(
    name: str, operator: "chunk_pb2.Operator.ValueType", values: Sequence[str | int | float | bool]
) -> chunk_pb2.Filter:
    """One comparison."""
    comparison = chunk_pb2.Comparison(field=name, operator=operator, values=[make_value(value) for value in values])
    return chunk_pb2.Filter(comparison=comparison)


def as_error(error: grpc.aio.AioRpcError) -> BinnacleError:
    """The error that the call failed with."""
    return to_error(error, "retriever")
