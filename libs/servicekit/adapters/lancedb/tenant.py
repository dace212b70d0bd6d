"""One tenant's tables: live chunks, the archive of all chunks ever current, and documents.

Used by `vector_store.py`. One process writes; a lock makes its writes one after another, searches never wait for it.

Order of a replacement: archive, then the live chunks in one commit (old out, new in), then the documents. A crash
in between leaves documents that do not know of their new chunks yet, so that the caller's retry does it all again.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from lancedb.db import AsyncConnection
from lancedb.index import FTS, HnswSq
from lancedb.table import AsyncTable

from servicekit.adapters.lancedb import schema
from servicekit.adapters.lancedb.predicate import equals_any, quote
from servicekit.adapters.lancedb.snapshot import Snapshot
from servicekit.domain.metadata import merge_fields
from servicekit.errors import NotFound, NotReady
from servicekit.ports.vector_store import (
    CorpusState,
    DocumentRevision,
    StoredChunk,
    StoredDocument,
)


class TenantTables:
    """Open with `open_tables`; all writes go through one lock."""

    def __init__(
        self,
        connection: AsyncConnection,
        name: str,
        *,
        tables: tuple[AsyncTable, AsyncTable, AsyncTable],
        snapshot: Snapshot,
    ) -> None:
        self.name = name
        self.chunks, self.archive, self.documents = tables
        self.snapshot = snapshot
        self.write_lock = asyncio.Lock()
        self._connection = connection

    async def replace(self, revisions: Sequence[DocumentRevision]) -> int:
        """Make these the current revisions in one commit of the live chunks."""
        async with self.write_lock:
            fields = merge_fields(self.snapshot.fields, [one.document.metadata for one in revisions])
            missing = {name: kind for name, kind in fields.items() if name not in self.snapshot.fields}
            if missing:
                await self.chunks.add_columns(schema.metadata_columns(missing))
            columns = await self.chunks.schema()
            live, archived = await asyncio.to_thread(
                lambda: (schema.live_rows(revisions, columns), schema.archive_rows(revisions))
            )
            ids = [revision.document.document_id for revision in revisions]
            if archived.num_rows:
                await self.archive.add(archived)
            await (
                self.chunks.merge_insert("chunk_id")
                .when_matched_update_all()
                .when_not_matched_insert_all()
                .when_not_matched_by_source_delete(equals_any("document_id", ids))
                .execute(live)
            )
            return await self._record([revision.document for revision in revisions])

    async def delete(self, document_id: str, *, erase_time: datetime) -> int:
        """Take the document out of the search, empty its archive, leave a tombstone."""
        async with self.write_lock:
            document = (await self.get_documents([document_id])).get(document_id)
            if document is None or document.delete_time is not None:
                raise NotFound(f"no document {document_id!r}", reason="DOCUMENT_NOT_FOUND")
            where = f"document_id = {quote(document_id)}"
            await self.chunks.delete(where)
            erased = schema.ERASED_SQL | {"erase_time": quote(erase_time.isoformat())}
            await self.archive.update(updates_sql=erased, where=where)
            return await self._record([schema.erased_document(document, erase_time)])

    async def get_chunks(self, content_hashes: Sequence[str]) -> Mapping[str, StoredChunk]:
        """From the archive; a living copy goes before an erased one, a newer before an older."""
        where = equals_any("content_hash", content_hashes)
        rows = await self.archive.query().where(where).to_list()
        rows.sort(key=lambda row: (row["erase_time"] is None, row["erase_time"] or 0, row["revision"]))
        return {row["content_hash"]: schema.to_stored_chunk(row) for row in rows}

    async def get_documents(self, document_ids: Sequence[str]) -> Mapping[str, StoredDocument]:
        """Documents by id."""
        rows = await self.documents.query().where(equals_any("document_id", document_ids)).to_list()
        return {row["document_id"]: schema.to_document(row) for row in rows}

    async def list_documents(self, *, page_size: int, after: str) -> Sequence[StoredDocument]:
        """Live documents in the order of their ids, those beyond `after`."""
        where = f"delete_time IS NULL AND document_id > {quote(after)}"
        found = await self.documents.query().where(where).select(["document_id"]).to_arrow()
        page = sorted(found["document_id"].to_pylist())[:page_size]
        documents = await self.get_documents(page) if page else {}
        return [documents[document_id] for document_id in page]

    async def describe(self) -> CorpusState:
        """Counts of this moment."""
        return CorpusState(
            version=self.snapshot.corpus_version,
            documents=await self.documents.count_rows("delete_time IS NULL"),
            chunks=await self.snapshot.chunks.count_rows(),
            fields=dict(self.snapshot.fields),
        )

    async def build_vector_index(self) -> None:
        """An approximate index in place of the exact scan, for a corpus that has outgrown it."""
        config = HnswSq(distance_type="cosine", num_partitions=1, m=20, ef_construction=300)
        await self.chunks.create_index("vector", config=config, replace=True)

    async def refresh(self) -> None:
        """Let searches see what has been committed."""
        self.snapshot = await _take_snapshot(self._connection, self.name, corpus_version=self.snapshot.corpus_version)

    async def _record(self, documents: Sequence[StoredDocument]) -> int:
        version = self.snapshot.corpus_version + 1
        rows = schema.document_rows(documents, corpus_version=version)
        merge = self.documents.merge_insert("document_id").when_matched_update_all()
        await merge.when_not_matched_insert_all().execute(rows)
        self.snapshot = await _take_snapshot(self._connection, self.name, corpus_version=version)
        return version


async def open_tables(connection: AsyncConnection, name: str, *, dimension: int, create: bool) -> TenantTables | None:
    """A tenant's tables; None if there are none and none are to be made.

    Raises:
        NotReady: the vectors in them are not of this dimension.
    """
    try:
        chunks = await connection.open_table(f"{name}.chunks")
    except ValueError:
        if not create:
            return None
        chunks = await connection.create_table(f"{name}.chunks", schema=schema.chunk_schema(dimension), exist_ok=True)
    archive = await connection.create_table(f"{name}.archive", schema=schema.ARCHIVE_SCHEMA, exist_ok=True)
    documents = await connection.create_table(f"{name}.documents", schema=schema.DOCUMENT_SCHEMA, exist_ok=True)
    if not any("search_text" in index.columns for index in await chunks.list_indices()):
        await chunks.create_index("search_text", config=FTS())
    held = (await chunks.schema()).field("vector").type.list_size
    if held != dimension:
        raise NotReady(
            f"the index holds vectors of {held} values, the embedder gives {dimension}: index again elsewhere",
            reason="EMBEDDING_DIMENSION_MISMATCH",
        )
    snapshot = await _take_snapshot(connection, name, corpus_version=await _last_version(documents))
    return TenantTables(connection, name, tables=(chunks, archive, documents), snapshot=snapshot)


async def _last_version(documents: AsyncTable) -> int:
    versions = await documents.query().select(["corpus_version"]).to_arrow()
    return max(versions["corpus_version"].to_pylist(), default=0)


async def _take_snapshot(connection: AsyncConnection, name: str, *, corpus_version: int) -> Snapshot:
    chunks = await connection.open_table(f"{name}.chunks")
    columns: Any = await chunks.schema()
    indices = await chunks.list_indices()
    return Snapshot(
        chunks=chunks,
        dimension=columns.field("vector").type.list_size,
        corpus_version=corpus_version,
        fields=schema.metadata_fields(columns),
        has_vector_index=any("vector" in index.columns for index in indices),
    )
