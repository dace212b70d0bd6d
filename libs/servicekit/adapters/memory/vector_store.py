"""A vector store in this process's memory, exact and simple. Chosen by `memory://`; lost with the process.

The reference that the conformance suite was written against; its searches are linear in the corpus.
"""

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from servicekit.adapters.memory.bm25 import Bm25Index
from servicekit.adapters.vector_checks import already_retracted, check_model, check_vector, no_document
from servicekit.domain.chunk import Chunk, ScoredChunk
from servicekit.domain.filter import FieldKind, check_filter, matches
from servicekit.domain.fusion import FusedHit, fuse
from servicekit.domain.metadata import filter_fields, merge_fields
from servicekit.ports.embedder import Vector
from servicekit.ports.vector_store import (
    MIN_FUSION_DEPTH,
    ChunkPlace,
    CorpusState,
    DocumentRevision,
    IndexedChunk,
    SearchHits,
    SearchMode,
    SearchQuery,
    StoredChunk,
    StoredDocument,
)


@dataclass(slots=True)
class _Corpus:
    documents: dict[str, StoredDocument] = field(default_factory=dict)
    live: dict[str, tuple[IndexedChunk, ...]] = field(default_factory=dict)
    archive: dict[str, list[Chunk]] = field(default_factory=dict)
    erased: dict[str, datetime] = field(default_factory=dict)
    fields: dict[str, FieldKind] = field(default_factory=dict)
    version: int = 0
    model: str = ""
    dimension: int = 0
    rebuild: "_Rebuild | None" = None

    def found(self) -> Iterator[IndexedChunk]:
        """Chunks of current revisions."""
        return (indexed for chunks in self.live.values() for indexed in chunks)

    def existing(self, document_id: str) -> StoredDocument:
        """A document that is not deleted."""
        document = self.documents.get(document_id)
        if document is None or document.delete_time is not None:
            raise no_document(document_id)
        return document


@dataclass(slots=True)
class _Rebuild:
    """Vectors of the new model by chunk id."""

    model: str
    dimension: int
    vectors: dict[str, Vector] = field(default_factory=dict)


class MemoryVectorStore:
    """Every method runs without yielding, so each is one instant."""

    def __init__(self) -> None:
        self._corpora: dict[str, _Corpus] = {}

    async def search(self, tenant: str, query: SearchQuery) -> SearchHits:
        """Score every live chunk."""
        corpus = self._corpora.get(tenant, _Corpus())
        if query.condition is not None:
            check_filter(query.condition, corpus.fields)
        if query.mode is not SearchMode.SPARSE and corpus.model:
            check_model(query.model, held=corpus.model)
            check_vector(query.vector, dimension=corpus.dimension)
        candidates = {
            indexed.chunk.chunk_id: indexed
            for indexed in corpus.found()
            if query.condition is None or matches(query.condition, filter_fields(indexed.chunk))
        }
        stages: dict[str, float] = {}
        dense, sparse = _rank(candidates, query, stages)
        started_s = time.perf_counter()
        hits = fuse(dense, sparse, dense_weight=query.dense_weight, top_k=query.top_k, method=query.fusion)
        stages["fuse"] = time.perf_counter() - started_s
        chunks = tuple(_scored(candidates[hit.key].chunk, rank, hit, query.mode) for rank, hit in enumerate(hits, 1))
        vectors = {hit.key: candidates[hit.key].vector for hit in hits} if query.want_vectors else {}
        return SearchHits(chunks, corpus.version, stages, vectors)

    async def get_places(self, tenant: str, places: Sequence[ChunkPlace]) -> Mapping[ChunkPlace, Chunk]:
        """Chunks of current revisions by their places."""
        corpus = self._corpora.get(tenant, _Corpus())
        chunks = (one.chunk for one in corpus.found())
        held = {ChunkPlace(chunk.document_id, chunk.ordinal): chunk for chunk in chunks}
        return {place: held[place] for place in places if place in held}

    async def get_chunks(self, tenant: str, content_hashes: Sequence[str]) -> Mapping[str, StoredChunk]:
        """Chunks by content hash, of retired revisions too."""
        corpus = self._corpora.get(tenant, _Corpus())
        found = {}
        for content_hash in content_hashes:
            if chunks := corpus.archive.get(content_hash):
                found[content_hash] = StoredChunk(chunks[-1])
            elif content_hash in corpus.erased:
                found[content_hash] = StoredChunk(None, corpus.erased[content_hash])
        return found

    async def replace_documents(self, tenant: str, revisions: Sequence[DocumentRevision], *, model: str) -> int:
        """Make these the current revisions."""
        corpus = self._corpora.get(tenant) or _Corpus()
        if corpus.model:
            check_model(model, held=corpus.model)
        fields = merge_fields(corpus.fields, [revision.document.metadata for revision in revisions])
        for indexed in (one for revision in revisions for one in revision.chunks):
            corpus.dimension = corpus.dimension or len(indexed.vector)
            check_vector(indexed.vector, dimension=corpus.dimension)
        corpus.fields, corpus.model = fields, model
        self._corpora[tenant] = corpus
        for revision in revisions:
            document_id = revision.document.document_id
            corpus.documents[document_id] = revision.document
            corpus.live[document_id] = revision.chunks
            for indexed in revision.chunks:
                if corpus.rebuild is not None:
                    corpus.rebuild.vectors.pop(indexed.chunk.chunk_id, None)
                held = corpus.archive.setdefault(indexed.chunk.content_hash, [])
                held[:] = [*(old for old in held if old.chunk_id != indexed.chunk.chunk_id), indexed.chunk]
        corpus.version += 1
        return corpus.version

    async def retract_document(self, tenant: str, document_id: str, *, retract_time: datetime) -> int:
        """Hide a document."""
        corpus = self._corpora.get(tenant, _Corpus())
        document = corpus.existing(document_id)
        if document.retract_time is not None:
            raise already_retracted(document_id)
        corpus.live.pop(document_id)
        corpus.documents[document_id] = replace(document, retract_time=retract_time)
        corpus.version += 1
        return corpus.version

    async def delete_document(self, tenant: str, document_id: str, *, erase_time: datetime) -> int:
        """Erase a document, leaving tombstones."""
        corpus = self._corpora.get(tenant, _Corpus())
        document = corpus.existing(document_id)
        corpus.live.pop(document_id, None)
        for content_hash, chunks in list(corpus.archive.items()):
            kept = [chunk for chunk in chunks if chunk.document_id != document_id]
            if len(kept) < len(chunks):
                corpus.erased[content_hash] = erase_time
                corpus.archive[content_hash] = kept
        corpus.documents[document_id] = replace(
            document, title="", source_uri="", metadata={}, chunk_count=0, delete_time=erase_time
        )
        corpus.version += 1
        return corpus.version

    async def get_documents(self, tenant: str, document_ids: Sequence[str]) -> Mapping[str, StoredDocument]:
        """Documents by id, tombstones too."""
        documents = self._corpora.get(tenant, _Corpus()).documents
        return {key: documents[key] for key in document_ids if key in documents}

    async def list_documents(
        self, tenant: str, *, page_size: int, after: str = "", include_retracted: bool = False
    ) -> Sequence[StoredDocument]:
        """Documents in the order of their ids."""
        documents = self._corpora.get(tenant, _Corpus()).documents
        keys = sorted(
            key
            for key, document in documents.items()
            if key > after and not document.delete_time and (include_retracted or not document.retract_time)
        )
        return [documents[key] for key in keys[:page_size]]

    async def describe(self, tenant: str) -> CorpusState:
        """The corpus as it stands."""
        corpus = self._corpora.get(tenant, _Corpus())
        chunks = sum(map(len, corpus.live.values()))
        return CorpusState(
            corpus.version, len(corpus.live), chunks, dict(corpus.fields), corpus.model, corpus.dimension
        )

    async def list_tenants(self) -> Sequence[str]:
        """Tenants that ever wrote."""
        return list(self._corpora)

    async def begin_rebuild(self, tenant: str, *, model: str, dimension: int) -> None:
        """Have an empty set of vectors of this model."""
        corpus = self._corpora.setdefault(tenant, _Corpus())
        if corpus.rebuild is None or corpus.rebuild.model != model:
            corpus.rebuild = _Rebuild(model, dimension)

    async def chunks_to_rebuild(self, tenant: str, *, limit: int) -> Sequence[IndexedChunk]:
        """Live chunks that have no new vector yet."""
        corpus = self._corpora.get(tenant, _Corpus())
        if corpus.rebuild is None:
            return ()
        lacking = [one for one in corpus.found() if one.chunk.chunk_id not in corpus.rebuild.vectors]
        return [replace(one, vector=()) for one in lacking[:limit]]

    async def write_rebuilt(self, tenant: str, chunks: Sequence[IndexedChunk]) -> None:
        """Keep the new vectors."""
        corpus = self._corpora[tenant]
        if corpus.rebuild is not None:
            current = {one.chunk.chunk_id: one for one in corpus.found()}
            for one in chunks:
                check_vector(one.vector, dimension=corpus.rebuild.dimension)
                held = current.get(one.chunk.chunk_id)
                if held is not None and held.search_text == one.search_text:
                    corpus.rebuild.vectors[one.chunk.chunk_id] = one.vector

    async def finish_rebuild(self, tenant: str) -> bool:
        """Switch to the new vectors, unless some are lacking."""
        corpus = self._corpora[tenant]
        if corpus.rebuild is None or await self.chunks_to_rebuild(tenant, limit=1):
            return False
        for document_id, chunks in corpus.live.items():
            corpus.live[document_id] = tuple(
                replace(one, vector=corpus.rebuild.vectors[one.chunk.chunk_id]) for one in chunks
            )
        corpus.model, corpus.dimension, corpus.rebuild = corpus.rebuild.model, corpus.rebuild.dimension, None
        return True

    async def ping(self) -> None:
        """Always answers."""


def _rank(
    candidates: Mapping[str, IndexedChunk], query: SearchQuery, stages: dict[str, float]
) -> tuple[Mapping[str, float], Mapping[str, float]]:
    depth = max(query.top_k, MIN_FUSION_DEPTH) if query.mode is SearchMode.HYBRID else query.top_k
    dense: Mapping[str, float] = {}
    sparse: Mapping[str, float] = {}
    if query.mode is not SearchMode.SPARSE:
        started_s = time.perf_counter()
        vector = query.vector or ()
        dense = _deepest({key: _dot(vector, one.vector) for key, one in candidates.items()}, depth)
        stages["dense"] = time.perf_counter() - started_s
    if query.mode is not SearchMode.DENSE:
        started_s = time.perf_counter()
        index = Bm25Index((key, one.search_text) for key, one in candidates.items())
        sparse = _deepest(index.score(query.text), depth)
        stages["sparse"] = time.perf_counter() - started_s
    return dense, sparse


def _dot(left: Vector, right: Vector) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def _deepest(scores: Mapping[str, float], depth: int) -> Mapping[str, float]:
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:depth])


def _scored(chunk: Chunk, rank: int, hit: FusedHit, mode: SearchMode) -> ScoredChunk:
    own = {SearchMode.DENSE: hit.dense_score, SearchMode.SPARSE: hit.sparse_score}.get(mode)
    score = hit.score if own is None else own
    fusion_score = hit.score if mode is SearchMode.HYBRID else None
    return ScoredChunk(chunk, rank, score, hit.dense_score, hit.sparse_score, fusion_score)


@asynccontextmanager
async def open_vector_store(url: str) -> AsyncIterator[MemoryVectorStore]:
    """An empty store; the URL says nothing more."""
    del url
    yield MemoryVectorStore()
