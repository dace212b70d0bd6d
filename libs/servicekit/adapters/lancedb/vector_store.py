"""The vector store on this machine's disk: `lancedb:///var/lib/binnacle/lancedb`, three tables a tenant.

Opened by `servicekit.adapters.registry` for the retriever. One process at a time writes to a folder.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import lancedb
from lancedb.db import AsyncConnection

from servicekit.adapters.lancedb.maintenance import Maintenance
from servicekit.adapters.lancedb.tenant import TenantTables, open_tables
from servicekit.errors import BackendUnavailable, InvalidRequest, NotFound
from servicekit.ports.vector_store import (
    CorpusState,
    DocumentRevision,
    SearchHits,
    SearchQuery,
    StoredChunk,
    StoredDocument,
)

DEFAULT_DIMENSION = 384
INDEX_CACHE_BYTES = 512 * 1024 * 1024
METADATA_CACHE_BYTES = 128 * 1024 * 1024
_EMPTY = CorpusState(version=0, documents=0, chunks=0, fields={})


class LanceVectorStore:
    """Tables are opened, or made by the first write, as tenants come along."""

    def __init__(self, connection: AsyncConnection, *, dimension: int, maintenance: Maintenance) -> None:
        self._connection = connection
        self._dimension = dimension
        self._maintenance = maintenance
        self._tenants: dict[str, TenantTables] = {}
        self._opening = asyncio.Lock()

    async def search(self, tenant: str, query: SearchQuery) -> SearchHits:
        """Search one consistent state of the tenant's chunks."""
        with _translated():
            tables = await self._tables(tenant)
            if tables is None:
                return SearchHits((), 0, {})
            return await tables.snapshot.search(query)

    async def get_chunks(self, tenant: str, content_hashes: Sequence[str]) -> Mapping[str, StoredChunk]:
        """Chunks by content hash, of retired revisions too."""
        with _translated():
            tables = await self._tables(tenant)
            return {} if tables is None or not content_hashes else await tables.get_chunks(content_hashes)

    async def replace_documents(self, tenant: str, revisions: Sequence[DocumentRevision], *, model: str) -> int:
        """Make these the current revisions, all at one instant."""
        with _translated():
            del model  # not pinned here yet
            tables = await self._tables(tenant, create=True)
            if tables is None:
                raise BackendUnavailable("lancedb", reason="VECTOR_STORE_FAILED")
            version = await tables.replace(revisions)
            self._maintenance.note_write(tables, rows=sum(len(one.chunks) for one in revisions))
            return version

    async def delete_document(self, tenant: str, document_id: str, *, erase_time: datetime) -> int:
        """Erase a document with all its revisions, leaving tombstones."""
        with _translated():
            tables = await self._tables(tenant)
            if tables is None:
                raise NotFound(f"no document {document_id!r}", reason="DOCUMENT_NOT_FOUND")
            version = await tables.delete(document_id, erase_time=erase_time)
            self._maintenance.note_write(tables, rows=0)
            return version

    async def get_documents(self, tenant: str, document_ids: Sequence[str]) -> Mapping[str, StoredDocument]:
        """Documents by id, tombstones too."""
        with _translated():
            tables = await self._tables(tenant)
            return {} if tables is None or not document_ids else await tables.get_documents(document_ids)

    async def list_documents(self, tenant: str, *, page_size: int, after: str = "") -> Sequence[StoredDocument]:
        """Live documents in the order of their ids, those beyond `after`."""
        with _translated():
            tables = await self._tables(tenant)
            return () if tables is None else await tables.list_documents(page_size=page_size, after=after)

    async def describe(self, tenant: str) -> CorpusState:
        """The corpus as it stands."""
        with _translated():
            tables = await self._tables(tenant)
            return _EMPTY if tables is None else await tables.describe()

    async def ping(self) -> None:
        """Read the folder."""
        with _translated():
            await self._connection.list_tables(limit=1)

    async def _tables(self, tenant: str, *, create: bool = False) -> TenantTables | None:
        tables = self._tenants.get(tenant)
        if tables is None:
            async with self._opening:
                tables = self._tenants.get(tenant) or await open_tables(
                    self._connection, table_name(tenant), dimension=self._dimension, create=create
                )
                if tables is not None:
                    self._tenants[tenant] = tables
        return tables


def table_name(tenant: str) -> str:
    """A name that any tenant can have on any file system, recognisable and never shared."""
    readable = re.sub(r"[^a-z0-9]+", "-", tenant.lower())[:32].strip("-")
    digest = hashlib.sha256(tenant.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{readable or 'tenant'}-{digest}"


@contextmanager
def _translated() -> Iterator[None]:
    # The library raises these three for whatever goes wrong below it.
    try:
        yield
    except (OSError, RuntimeError, ValueError) as exc:
        raise BackendUnavailable("the vector store failed: try again", reason="VECTOR_STORE_FAILED") from exc


@asynccontextmanager
async def open_vector_store(url: str, *, dimension: int = DEFAULT_DIMENSION) -> AsyncIterator[LanceVectorStore]:
    """Open the folder that the URL names, made if need be; the background task ends with the block."""
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
    maintenance = Maintenance()
    # This block owns the task; a TaskGroup would turn the errors of the code inside the block into groups.
    running = asyncio.create_task(maintenance.run(), name="vector-store-maintenance")
    try:
        yield LanceVectorStore(connection, dimension=dimension, maintenance=maintenance)
    finally:
        running.cancel()
        await asyncio.wait([running])
        connection.close()  # type: ignore[no-untyped-call]  # the library's annotation is missing
