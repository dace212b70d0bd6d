"""The vector store on this machine's disk: `lancedb:///var/lib/binnacle/lancedb`, four tables a tenant at most.

Opened by `servicekit.adapters.registry` for the retriever. One process at a time writes to a folder, and the
maintenance process that it starts.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import lancedb
from lancedb.db import AsyncConnection

from servicekit.adapters.lancedb import rebuild
from servicekit.adapters.lancedb.catalog import Catalog, open_catalog
from servicekit.adapters.lancedb.maintenance import Maintenance
from servicekit.adapters.lancedb.opening import make_tables, open_tables
from servicekit.adapters.lancedb.tenant import TenantTables
from servicekit.adapters.lancedb.worker_process import WorkerProcess
from servicekit.adapters.vector_checks import no_document
from servicekit.domain.chunk import Chunk
from servicekit.errors import BackendUnavailable, InvalidRequest
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

INDEX_CACHE_BYTES = 512 * 1024 * 1024
METADATA_CACHE_BYTES = 128 * 1024 * 1024
_EMPTY = CorpusState(version=0, documents=0, chunks=0, fields={})


class LanceVectorStore:
    """Tables are opened, or made by the first write, as tenants come along."""

    def __init__(self, connection: AsyncConnection, catalog: Catalog, *, maintenance: Maintenance) -> None:
        self._connection = connection
        self._catalog = catalog
        self._maintenance = maintenance
        self._tenants: dict[str, TenantTables] = {}
        self._opening = asyncio.Lock()

    async def search(self, tenant: str, query: SearchQuery) -> SearchHits:
        """Search one consistent state of the tenant's chunks."""
        with _translated():
            tables = await self._tables(tenant)
            return SearchHits((), 0, {}) if tables is None else await tables.search(query)

    async def get_places(self, tenant: str, places: Sequence[ChunkPlace]) -> Mapping[ChunkPlace, Chunk]:
        """Chunks of current revisions by their places."""
        with _translated():
            tables = await self._tables(tenant)
            return {} if tables is None or not places else await tables.snapshot.get_places(places)

    async def get_chunks(self, tenant: str, content_hashes: Sequence[str]) -> Mapping[str, StoredChunk]:
        """Chunks by content hash, of retired revisions too."""
        with _translated():
            tables = await self._tables(tenant)
            return {} if tables is None or not content_hashes else await tables.get_chunks(content_hashes)

    async def replace_documents(self, tenant: str, revisions: Sequence[DocumentRevision], *, model: str) -> int:
        """Make these the current revisions, all at one instant; waits a while where the index is far behind."""
        with _translated():
            tables = await self._tables(tenant)
            if tables is None:
                vectors = (indexed.vector for revision in revisions for indexed in revision.chunks)
                tables = await self._made(tenant, model=model, dimension=len(next(vectors, ())))
            await self._maintenance.wait_for_room(tables)
            version = await tables.replace(revisions, model=model)
            self._maintenance.note_write(tables, rows=sum(len(one.chunks) for one in revisions))
            return version

    async def retract_document(self, tenant: str, document_id: str, *, retract_time: datetime) -> int:
        """Hide a document from every search that begins afterwards."""
        with _translated():
            tables = await self._existing(tenant, document_id)
            version = await tables.retract(document_id, retract_time=retract_time)
            self._maintenance.note_write(tables, rows=0)
            return version

    async def delete_document(self, tenant: str, document_id: str, *, erase_time: datetime) -> int:
        """Erase a document with all its revisions, leaving tombstones."""
        with _translated():
            tables = await self._existing(tenant, document_id)
            version = await tables.delete(document_id, erase_time=erase_time)
            self._maintenance.note_write(tables, rows=0, erased=True)
            return version

    async def get_documents(self, tenant: str, document_ids: Sequence[str]) -> Mapping[str, StoredDocument]:
        """Documents by id, tombstones too."""
        with _translated():
            tables = await self._tables(tenant)
            return {} if tables is None or not document_ids else await tables.get_documents(document_ids)

    async def list_documents(
        self, tenant: str, *, page_size: int, after: str = "", include_retracted: bool = False
    ) -> Sequence[StoredDocument]:
        """Documents that are not deleted, in the order of their ids, those beyond `after`."""
        with _translated():
            tables = await self._tables(tenant)
            if tables is None:
                return ()
            return await tables.list_documents(page_size=page_size, after=after, include_retracted=include_retracted)

    async def describe(self, tenant: str) -> CorpusState:
        """The corpus as it stands."""
        with _translated():
            tables = await self._tables(tenant)
            return _EMPTY if tables is None else await tables.describe()

    async def list_tenants(self) -> Sequence[str]:
        """Tenants that ever wrote."""
        with _translated():
            return await self._catalog.tenants()

    async def begin_rebuild(self, tenant: str, *, model: str, dimension: int) -> None:
        """Have an index of this model beside."""
        with _translated():
            tables = await self._tables(tenant) or await self._made(tenant, model=model, dimension=dimension)
            await rebuild.begin(tables, model=model, dimension=dimension)

    async def chunks_to_rebuild(self, tenant: str, *, limit: int) -> Sequence[IndexedChunk]:
        """Chunks that the index beside does not hold yet."""
        with _translated():
            tables = await self._tables(tenant)
            return () if tables is None else await rebuild.lacking(tables, limit=limit)

    async def write_rebuilt(self, tenant: str, chunks: Sequence[IndexedChunk]) -> None:
        """Put chunks with their new vectors into the index beside."""
        with _translated():
            tables = await self._tables(tenant)
            if tables is not None:
                await rebuild.write(tables, chunks)

    async def finish_rebuild(self, tenant: str) -> bool:
        """Switch to the index beside and drop the old one, unless chunks are lacking."""
        with _translated():
            tables = await self._tables(tenant)
            return tables is not None and await rebuild.finish(tables, prepare=self._maintenance.prepare)

    async def ping(self) -> None:
        """Read the folder."""
        with _translated():
            await self._connection.list_tables(limit=1)

    async def _tables(self, tenant: str) -> TenantTables | None:
        tables = self._tenants.get(tenant)
        if tables is None:
            async with self._opening:
                tables = self._tenants.get(tenant) or await open_tables(self._connection, self._catalog, tenant)
                if tables is not None:
                    self._tenants[tenant] = tables
        return tables

    async def _made(self, tenant: str, *, model: str, dimension: int) -> TenantTables:
        async with self._opening:
            tables = self._tenants.get(tenant)
            if tables is None:
                tables = await make_tables(self._connection, self._catalog, tenant, model=model, dimension=dimension)
                self._tenants[tenant] = tables
            return tables

    async def _existing(self, tenant: str, document_id: str) -> TenantTables:
        tables = await self._tables(tenant)
        if tables is None:
            raise no_document(document_id)
        return tables


@contextmanager
def _translated() -> Iterator[None]:
    # The library raises these three for whatever goes wrong below it.
    try:
        yield
    except (OSError, RuntimeError, ValueError) as exc:
        raise BackendUnavailable("the vector store failed: try again", reason="VECTOR_STORE_FAILED") from exc


@asynccontextmanager
async def open_vector_store(url: str) -> AsyncIterator[LanceVectorStore]:
    """Open the folder that the URL names, made if need be; background task and process end with the block."""
    parts = urlsplit(url)
    folder = unquote(parts.path)
    if parts.netloc or parts.query or not folder.strip("/"):
        raise InvalidRequest(
            f"vector_store_url must be lancedb:///absolute/folder, got {url!r}", field="vector_store_url"
        )
    with _translated():
        await asyncio.to_thread(Path(folder).mkdir, parents=True, exist_ok=True)
        connection = await lancedb.connect_async(
            folder, session=lancedb.Session(INDEX_CACHE_BYTES, METADATA_CACHE_BYTES)
        )
        catalog = await open_catalog(connection)
    maintenance = Maintenance(connection, WorkerProcess(folder))
    # This block owns the task; a TaskGroup would turn the errors of the code inside the block into groups.
    running = asyncio.create_task(maintenance.run(), name="vector-store-maintenance")
    try:
        yield LanceVectorStore(connection, catalog, maintenance=maintenance)
    finally:
        running.cancel()
        await asyncio.wait([running])
        connection.close()  # type: ignore[no-untyped-call]  # the library's annotation is missing
