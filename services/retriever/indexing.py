"""Turns documents into indexed chunks: prepare, embed, swap in; one document's changes one after another.

Called by `server.py` for documents handed in directly, and by `events.py` for submitted ones.

Idempotent: a document whose content, metadata, cutting rules and embedding model are unchanged is left alone.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary

from servicekit.errors import InvalidRequest
from servicekit.ports.clock import Clock
from servicekit.ports.embedder import Embedder
from servicekit.ports.vector_store import DocumentRevision, IndexedChunk, StoredDocument, VectorStore
from services.retriever.chunking import ChunkRules
from services.retriever.document import SubmittedDocument
from services.retriever.preparing import Draft, IndexResult, Preparer


@dataclass(frozen=True, slots=True)
class IndexReport:
    """Results in the order of the documents, the corpus version after them, and the time it took."""

    results: tuple[IndexResult, ...]
    corpus_version: int
    elapsed_s: float


class Indexer:
    """Indexes and deletes; work on one document never overlaps, whoever asks for it."""

    def __init__(
        self, *, store: VectorStore, embedder: Embedder, clock: Clock, rules: ChunkRules | None = None
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._clock = clock
        self._preparer = Preparer(embedder.tokenizer, embedder.model, rules or ChunkRules())
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def index(self, tenant: str, documents: Sequence[SubmittedDocument], *, path: str) -> IndexReport:
        """Index documents with different ids; a refused one does not hinder the others.

        Args:
            tenant: whose documents they are.
            documents: what was handed in.
            path: the request's field that holds them, for messages; `{}` stands for the place.

        Raises:
            InvalidRequest: an id stands twice, or metadata clashes with what another call wrote meanwhile.
            BackendUnavailable: the store or the embedder is away; repeating the call is safe.
        """
        started_s = self._clock.monotonic_s()
        _check_distinct(documents)
        document_ids = [document.document_id for document in documents]
        async with self._locked(tenant, document_ids):
            results, drafts = await asyncio.to_thread(
                self._preparer.prepare,
                tenant,
                documents,
                known=await self._store.get_documents(tenant, document_ids),
                fields=(await self._store.describe(tenant)).fields,
                path=path,
                now=self._clock.now(),
            )
            version = await self._store_drafts(tenant, drafts)
        return IndexReport(tuple(results), version, self._clock.monotonic_s() - started_s)

    async def delete(self, tenant: str, document_id: str) -> tuple[StoredDocument, int]:
        """Erase a document with its revisions; returns its tombstone and the corpus version after it.

        Raises:
            NotFound: there is none, or it is deleted already.
        """
        async with self._locked(tenant, [document_id]):
            version = await self._store.delete_document(tenant, document_id, erase_time=self._clock.now())
            return (await self._store.get_documents(tenant, [document_id]))[document_id], version

    async def retract(self, tenant: str, document_id: str) -> tuple[StoredDocument, int]:
        """Hide a document from searches; returns it as it stands now and the corpus version after it.

        Raises:
            NotFound: there is none, or it is deleted.
            NotReady: it is retracted already.
        """
        async with self._locked(tenant, [document_id]):
            version = await self._store.retract_document(tenant, document_id, retract_time=self._clock.now())
            return (await self._store.get_documents(tenant, [document_id]))[document_id], version

    async def _store_drafts(self, tenant: str, drafts: Sequence[Draft]) -> int:
        """Embed all of them and swap them in at one instant."""
        if not drafts:
            return (await self._store.describe(tenant)).version
        texts = [text for draft in drafts for text in draft.search_texts]
        vectors = iter(await self._embedder.embed_documents(texts))
        revisions = [
            DocumentRevision(
                draft.document,
                tuple(
                    IndexedChunk(chunk, next(vectors), text)
                    for chunk, text in zip(draft.chunks, draft.search_texts, strict=True)
                ),
            )
            for draft in drafts
        ]
        return await self._store.replace_documents(tenant, revisions, model=self._embedder.model.id)

    @asynccontextmanager
    async def _locked(self, tenant: str, document_ids: Sequence[str]) -> AsyncIterator[None]:
        """Hold the documents' locks, taken in one order so that two calls never wait for each other."""
        async with AsyncExitStack() as held:
            for document_id in sorted(document_ids):
                lock = self._locks.setdefault((tenant, document_id), asyncio.Lock())
                await held.enter_async_context(lock)
            yield


def _check_distinct(documents: Sequence[SubmittedDocument]) -> None:
    seen: set[str] = set()
    for place, document in enumerate(documents):
        if document.document_id in seen:
            raise InvalidRequest(
                f"documents[{place}].document_id {document.document_id!r} stands in this request already: "
                "send each document once",
                field=f"documents[{place}].document_id",
                reason="DUPLICATE_DOCUMENT_ID",
            )
        seen.add(document.document_id)
