"""One tenant's tables: live chunks, the archive of all chunks ever current, and documents.

Used by `vector_store.py`. One process writes; a lock makes its writes one after another, searches never wait for it.

Order of a replacement: archive, then the live chunks in one commit (old out, new in), then the documents. A crash
in between leaves documents that do not know of their new chunks yet, so that the caller's retry does it all again.
A retraction or deletion is recorded first and carried out then; what a crash left undone is done at the next opening.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from functools import partial

from lancedb.db import AsyncConnection
from lancedb.table import AsyncTable

from servicekit.adapters.lancedb import schema
from servicekit.adapters.lancedb.catalog import Catalog, CatalogEntry
from servicekit.adapters.lancedb.commits import commit, see_newest
from servicekit.adapters.lancedb.predicate import equals_any, quote
from servicekit.adapters.lancedb.snapshot import Snapshot
from servicekit.adapters.lancedb.tables import create_chunks, drop_table
from servicekit.adapters.vector_checks import already_retracted, check_model, check_vector, no_document
from servicekit.domain.metadata import merge_fields
from servicekit.errors import BinnacleError
from servicekit.ports.vector_store import (
    CorpusState,
    DocumentRevision,
    IndexedChunk,
    SearchHits,
    SearchQuery,
    StoredChunk,
    StoredDocument,
)

# Older snapshots are let go once no search reads them; no search lasts this long.
SEARCH_LIMIT_S = 30.0
_POLL_S = 0.02
_LIVE = "delete_time IS NULL AND retract_time IS NULL"


class TenantTables:
    """Open with `opening.py`; all writes go through one lock."""

    def __init__(
        self,
        connection: AsyncConnection,
        catalog: Catalog,
        entry: CatalogEntry,
        *,
        tables: tuple[AsyncTable, AsyncTable, AsyncTable],
        snapshot: Snapshot,
        beside: AsyncTable | None,
    ) -> None:
        self.entry = entry
        self.chunks, self.archive, self.documents = tables
        self.beside = beside
        self.snapshot = snapshot
        self.connection = connection
        self.catalog = catalog
        self.searched_s = float("-inf")
        self._failed = False
        self._write_lock = asyncio.Lock()
        self._left: list[Snapshot] = []

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """One write at a time; the next one mends what one that failed midway left."""
        async with self._write_lock:
            if self._failed:
                await self.mend()
            self._failed = True
            try:
                yield
            except BinnacleError:  # refused before anything was written
                self._failed = False
                raise
            self._failed = False

    async def mend(self) -> None:
        """Carry out the last change that was recorded, in case it was not, and see what is committed."""
        await see_newest(self.documents)
        versions = (await self.documents.query().select(["corpus_version"]).to_arrow())["corpus_version"].to_pylist()
        version = max(versions, default=0)
        if version:
            rows = await self.documents.query().where(f"corpus_version = {version}").to_list()
            await self._carry_out([schema.to_document(row) for row in rows])
        await self.refresh(corpus_version=max(version, self.snapshot.corpus_version))

    async def replace(self, revisions: Sequence[DocumentRevision], *, model: str) -> int:
        """Make these the current revisions in one commit of the live chunks."""
        async with self.writing():
            check_model(model, held=self.entry.model)
            indexed = [one for revision in revisions for one in revision.chunks]
            documents = [revision.document for revision in revisions]
            fields = merge_fields(self.snapshot.fields, [document.metadata for document in documents])
            dimension = self.entry.dimension or (len(indexed[0].vector) if indexed else 0)
            for one in indexed:
                check_vector(one.vector, dimension=dimension)
            if not documents:
                return self.snapshot.corpus_version
            if dimension != self.entry.dimension:
                await self._take_dimension(dimension)
            missing = {name: kind for name, kind in fields.items() if name not in self.snapshot.fields}
            if missing:
                await commit(self.chunks, lambda table: table.add_columns(schema.metadata_columns(missing)))
            await self._swap_in([document.document_id for document in documents], indexed)
            return await self._record(documents)

    async def retract(self, document_id: str, *, retract_time: datetime) -> int:
        """Take the document out of the search."""
        async with self.writing():
            document = await self._existing(document_id)
            if document.retract_time is not None:
                raise already_retracted(document_id)
            return await self._record([replace(document, retract_time=retract_time)])

    async def delete(self, document_id: str, *, erase_time: datetime) -> int:
        """Take the document out of the search, empty its archive, leave a tombstone."""
        async with self.writing():
            document = await self._existing(document_id)
            return await self._record([schema.erased_document(document, erase_time)])

    async def search(self, query: SearchQuery) -> SearchHits:
        """Search the newest snapshot."""
        if not query.background:
            self.searched_s = time.monotonic()
        return await self.snapshot.search(query)

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

    async def list_documents(self, *, page_size: int, after: str, include_retracted: bool) -> Sequence[StoredDocument]:
        """Documents in the order of their ids by code point, those beyond `after`."""
        kept = "delete_time IS NULL" if include_retracted else _LIVE
        where = f"{kept} AND document_id > {quote(after)}"
        found = await self.documents.query().where(where).select(["document_id"]).to_arrow()
        page = sorted(found["document_id"].to_pylist())[:page_size]
        documents = await self.get_documents(page) if page else {}
        return [documents[document_id] for document_id in page]

    async def describe(self) -> CorpusState:
        """Counts of this moment."""
        return CorpusState(
            version=self.snapshot.corpus_version,
            documents=await self.documents.count_rows(_LIVE),
            chunks=await self.snapshot.chunks.count_rows(),
            fields=dict(self.snapshot.fields),
            model=self.entry.model,
            dimension=self.entry.dimension,
        )

    async def refresh(self, *, corpus_version: int | None = None) -> None:
        """Let searches see what has been committed, here or by the maintenance process."""
        for table in (self.chunks, self.archive, self.documents):
            await see_newest(table)
        version = self.snapshot.corpus_version if corpus_version is None else corpus_version
        self._left.append(self.snapshot)
        self.snapshot = await take_snapshot(self.connection, self.entry, corpus_version=version)
        self._left = [one for one in self._left if one.readers]

    async def wait_for_readers(self) -> None:
        """Return once no search reads an older snapshot, so that files that only those need can go."""
        async with asyncio.timeout(SEARCH_LIMIT_S):
            while any(one.readers for one in self._left):  # noqa: ASYNC110  # searches pay for no event
                await asyncio.sleep(_POLL_S)

    async def switch(self, entry: CatalogEntry, chunks: AsyncTable) -> None:
        """Search another index from now on, and drop the one before it; the caller holds the lock."""
        old = self.entry.chunks_table
        await self.catalog.put(entry)
        self.entry, self.chunks, self.beside = entry, chunks, None
        await self.refresh()
        with suppress(TimeoutError):  # what stays is dropped at the next opening
            await self.wait_for_readers()
            await drop_table(self.connection, old)

    async def _take_dimension(self, dimension: int) -> None:
        """The first vectors came: the index gets a column for them."""
        entry = replace(self.entry, dimension=dimension, generation=self.entry.generation + 1)
        chunks = await create_chunks(
            self.connection, entry.chunks_table, dimension=dimension, fields=self.snapshot.fields
        )
        await self.switch(entry, chunks)

    async def _swap_in(self, document_ids: Sequence[str], indexed: Sequence[IndexedChunk]) -> None:
        columns = await self.chunks.schema()
        live, archived = await asyncio.to_thread(
            lambda: (schema.live_rows(indexed, columns), schema.archive_rows(indexed))
        )
        if archived.num_rows:
            await commit(self.archive, lambda table: table.add(archived))
        await self._forget_beside(document_ids)
        theirs = equals_any("document_id", document_ids)
        await see_newest(self.chunks)
        if not await self.chunks.count_rows(theirs):
            # Nothing to take out: an append costs 4 ms at 100,000 chunks, a merge 200 ms.
            if live.num_rows:
                await commit(self.chunks, lambda table: table.add(live))
            return
        await commit(
            self.chunks,
            lambda table: (
                table.merge_insert("chunk_id")
                .when_matched_update_all()
                .when_not_matched_insert_all()
                .when_not_matched_by_source_delete(theirs)
                .execute(live)
            ),
        )

    async def _forget_beside(self, document_ids: Sequence[str]) -> None:
        """Vectors in the index beside were made of words that are no longer these documents'."""
        if self.beside is not None:
            where = equals_any("document_id", document_ids)
            await commit(self.beside, lambda table: table.delete(where))

    async def _existing(self, document_id: str) -> StoredDocument:
        await see_newest(self.documents)
        document = (await self.get_documents([document_id])).get(document_id)
        if document is None or document.delete_time is not None:
            raise no_document(document_id)
        return document

    async def _record(self, documents: Sequence[StoredDocument]) -> int:
        version = self.snapshot.corpus_version + 1
        rows = schema.document_rows(documents, corpus_version=version)
        await commit(
            self.documents,
            lambda table: (
                table.merge_insert("document_id").when_matched_update_all().when_not_matched_insert_all().execute(rows)
            ),
        )
        await self._carry_out(documents)
        await self.refresh(corpus_version=version)
        return version

    async def _carry_out(self, documents: Sequence[StoredDocument]) -> None:
        """Bring chunks and archive in line with what is recorded of retracted and deleted documents."""
        gone = [one.document_id for one in documents if one.retract_time is not None or one.delete_time is not None]
        if gone:
            where = equals_any("document_id", gone)
            await self._forget_beside(gone)
            await commit(self.chunks, lambda table: table.delete(where))
        for document in documents:
            if document.delete_time is not None:
                erased = schema.ERASED_SQL | {"erase_time": quote(document.delete_time.isoformat())}
                where = f"document_id = {quote(document.document_id)} AND erase_time IS NULL"
                await commit(self.archive, partial(AsyncTable.update, updates_sql=erased, where=where))


async def take_snapshot(connection: AsyncConnection, entry: CatalogEntry, *, corpus_version: int) -> Snapshot:
    """The live chunks as they stand, behind a handle of their own."""
    chunks = await connection.open_table(entry.chunks_table)
    columns = await chunks.schema()
    indices = await chunks.list_indices()
    return Snapshot(
        chunks=chunks,
        model=entry.model,
        dimension=entry.dimension,
        corpus_version=corpus_version,
        fields=schema.metadata_fields(columns),
        has_vector_index=any("vector" in index.columns for index in indices),
    )
