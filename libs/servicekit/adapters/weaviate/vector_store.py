"""The vector store on a Weaviate: `weaviate://host:port?grpc_port=50051`, or `weaviates://` with TLS.

Opened by `servicekit.adapters.registry` for the retriever. Weaviate 1.33 or newer; run against 1.39.
One process at a time writes a tenant, any number read.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime

import structlog

from servicekit.adapters.vector_checks import no_document
from servicekit.adapters.weaviate import reading, rebuilding, schema
from servicekit.adapters.weaviate.address import connect, parse_address
from servicekit.adapters.weaviate.corpus import Corpus
from servicekit.adapters.weaviate.faults import bounded
from servicekit.adapters.weaviate.searching import search
from servicekit.adapters.weaviate.server import WeaviateServer
from servicekit.adapters.weaviate.state import CorpusSnapshot
from servicekit.domain.chunk import Chunk
from servicekit.errors import BackendUnavailable, BinnacleError
from servicekit.ports.vector_store import (
    ChunkPlace,
    CorpusState,
    DocumentRevision,
    IndexedChunk,
    SearchHits,
    SearchQuery,
    StoredChunk,
    StoredDocument,
)

_UPKEEP_EVERY_S = 2.0
_PING_S = 2.0

log = structlog.get_logger(__name__)


class WeaviateVectorStore:
    """Tenants are looked up as they come along, and made by their first write."""

    def __init__(self, server: WeaviateServer) -> None:
        self._server = server
        self._corpora: dict[str, Corpus] = {}

    async def search(self, tenant: str, query: SearchQuery) -> SearchHits:
        """Search one snapshot of the tenant's chunks."""
        corpus = self._corpus(tenant)
        async with bounded(self._server.read_s):
            now = await corpus.refresh()
            if not now.model:
                return SearchHits((), now.version, {})
            return await search(corpus.chunks, now, query, unsettled=corpus.unsettled)

    async def get_places(self, tenant: str, places: Sequence[ChunkPlace]) -> Mapping[ChunkPlace, Chunk]:
        """Chunks of current revisions by their places."""
        corpus = await self._reader(tenant)
        return await reading.get_places(corpus, places) if places and corpus.snapshot.version else {}

    async def get_chunks(self, tenant: str, content_hashes: Sequence[str]) -> Mapping[str, StoredChunk]:
        """Chunks by content hash, of retired revisions too."""
        corpus = await self._reader(tenant)
        return await reading.get_chunks(corpus, content_hashes) if content_hashes and corpus.snapshot.version else {}

    async def replace_documents(self, tenant: str, revisions: Sequence[DocumentRevision], *, model: str) -> int:
        """Make these the current revisions, all at one instant."""
        return await self._corpus(tenant).replace(revisions, model=model)

    async def retract_document(self, tenant: str, document_id: str, *, retract_time: datetime) -> int:
        """Hide a document from every search that begins afterwards."""
        corpus = await self._existing(tenant, document_id)
        return await corpus.retract(document_id, retract_time=retract_time.isoformat())

    async def delete_document(self, tenant: str, document_id: str, *, erase_time: datetime) -> int:
        """Erase a document with all its revisions, leaving tombstones."""
        corpus = await self._existing(tenant, document_id)
        return await corpus.delete(document_id, erase_time=erase_time.isoformat())

    async def get_documents(self, tenant: str, document_ids: Sequence[str]) -> Mapping[str, StoredDocument]:
        """Documents by id, tombstones too."""
        records = await (await self._reader(tenant)).records(document_ids)
        return {document_id: schema.to_document(record) for document_id, record in records.items()}

    async def list_documents(
        self, tenant: str, *, page_size: int, after: str = "", include_retracted: bool = False
    ) -> Sequence[StoredDocument]:
        """Documents in the order of their ids."""
        corpus = await self._reader(tenant)
        if not corpus.snapshot.version:
            return ()
        return await reading.list_documents(
            corpus, page_size=page_size, after=after, include_retracted=include_retracted
        )

    async def describe(self, tenant: str) -> CorpusState:
        """The corpus as it stands."""
        now = (await self._reader(tenant)).snapshot
        return CorpusState(now.version, now.documents, now.chunks, dict(now.fields), now.model, now.dimension)

    async def list_tenants(self) -> Sequence[str]:
        """Tenants that ever wrote."""
        states = self._server.client.collections.use(self._server.states)
        names: dict[str, None] = {}
        async for page in self._server.every(states, properties=["body"]):
            names.update((CorpusSnapshot.from_json(one.properties["body"]).tenant, None) for one in page)
        return list(names)

    async def begin_rebuild(self, tenant: str, *, model: str, dimension: int) -> None:
        """Have an empty index of this model beside."""
        await rebuilding.begin_rebuild(self._corpus(tenant), model=model, dimension=dimension)

    async def chunks_to_rebuild(self, tenant: str, *, limit: int) -> Sequence[IndexedChunk]:
        """Chunks that the new index does not hold yet."""
        return await rebuilding.chunks_to_rebuild(await self._reader(tenant), limit=limit)

    async def write_rebuilt(self, tenant: str, chunks: Sequence[IndexedChunk]) -> None:
        """Put chunks with their new vectors into the new index."""
        await rebuilding.write_rebuilt(await self._reader(tenant), chunks)

    async def finish_rebuild(self, tenant: str) -> bool:
        """Switch to the new index, unless chunks are lacking."""
        return await rebuilding.finish_rebuild(self._corpus(tenant))

    async def ping(self) -> None:
        """Ask over both of the connections."""
        states = self._server.client.collections.use(self._server.states)
        async with bounded(_PING_S):
            if not await self._server.client.is_ready():
                raise BackendUnavailable("the vector store is not ready", reason="VECTOR_STORE_NOT_READY")
            await states.query.fetch_objects(limit=1, return_properties=[])

    async def keep_up(self) -> None:
        """Take dead chunks away, from time to time, until it is cancelled."""
        while True:
            await asyncio.sleep(_UPKEEP_EVERY_S)
            for corpus in list(self._corpora.values()):
                try:
                    await corpus.take_dead()
                except BinnacleError as exc:
                    log.warning("vector_store.upkeep_failed", tenant=corpus.name, reason=exc.reason)

    def _corpus(self, tenant: str) -> Corpus:
        if tenant not in self._corpora:
            self._corpora[tenant] = Corpus(self._server, tenant)
        return self._corpora[tenant]

    async def _reader(self, tenant: str) -> Corpus:
        corpus = self._corpus(tenant)
        await corpus.refresh()
        return corpus

    async def _existing(self, tenant: str, document_id: str) -> Corpus:
        corpus = await self._reader(tenant)
        if not corpus.snapshot.version:
            raise no_document(document_id)
        return corpus


@asynccontextmanager
async def open_vector_store(url: str, **options: object) -> AsyncIterator[WeaviateVectorStore]:
    """Connect to the Weaviate that the URL names; the connection and the upkeep end with the block.

    Raises:
        InvalidRequest: the URL is none.
        BackendUnavailable: no Weaviate answers there in time.
    """
    del options
    address = parse_address(url)
    async with connect(address) as client:
        server = WeaviateServer(client, prefix=address.prefix, read_s=address.read_s, write_s=address.write_s)
        await server.prepare()
        store = WeaviateVectorStore(server)
        # This block owns the task; a TaskGroup would turn the errors of the code inside the block into groups.
        running = asyncio.create_task(store.keep_up(), name="vector-store-upkeep")
        try:
            yield store
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
