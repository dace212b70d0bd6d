"""One consistent state of a tenant's live chunks, and the searches in it.

Made by `tenant.py` after each commit. A table handle that no one refreshes keeps showing the version it was opened
at: the two rankings of a hybrid search and the chunks fetched for them therefore agree, whatever is written meanwhile.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lancedb.query import MatchQuery
from lancedb.table import AsyncTable

from servicekit.adapters.lancedb.predicate import equals_any, to_sql
from servicekit.adapters.lancedb.schema import CHUNK_COLUMNS, to_chunk
from servicekit.adapters.vector_checks import check_model, check_vector
from servicekit.domain.chunk import Chunk, ScoredChunk
from servicekit.domain.filter import FieldKind, check_filter
from servicekit.domain.fusion import FusedHit, fuse
from servicekit.ports.vector_store import MIN_FUSION_DEPTH, ChunkPlace, SearchHits, SearchMode, SearchQuery

# Recall .9985 at 100,000 chunks with the index of `maintenance.py`; `ef` must reach depth times refinement.
MIN_EF = 200
REFINE_FACTOR = 3


@dataclass(slots=True)
class _Ranking:
    """Scores by chunk id, best first, and where each chunk lies."""

    scores: dict[str, float]
    row_ids: dict[str, int]
    elapsed_s: float = 0.0


@dataclass(slots=True, eq=False)
class Snapshot:
    """The live chunks at one corpus version; `dimension` is 0 while there are no vectors yet."""

    chunks: AsyncTable
    model: str
    dimension: int
    corpus_version: int
    fields: Mapping[str, FieldKind]
    has_vector_index: bool
    readers: int = field(default=0, init=False)

    async def search(self, query: SearchQuery) -> SearchHits:
        """Both rankings at once where both are asked for, fused, and the best chunks fetched."""
        where = None
        if query.condition is not None:
            check_filter(query.condition, self.fields)
            where = to_sql(query.condition)
        if query.mode is not SearchMode.SPARSE:
            check_model(query.model, held=self.model)
            if self.dimension:
                check_vector(query.vector, dimension=self.dimension)
        depth = max(query.top_k, MIN_FUSION_DEPTH) if query.mode is SearchMode.HYBRID else query.top_k
        with self._reading():
            dense, sparse = await asyncio.gather(self._dense(query, where, depth), self._sparse(query, where, depth))
            started_s = time.perf_counter()
            hits = _order(query, dense, sparse)
            rows = await self._fetch(hits, dense.row_ids | sparse.row_ids, want_vectors=query.want_vectors)
        stages = {"fuse": time.perf_counter() - started_s}
        if query.mode is not SearchMode.SPARSE:
            stages["dense"] = dense.elapsed_s
        if query.mode is not SearchMode.DENSE:
            stages["sparse"] = sparse.elapsed_s
        chunks = tuple(_scored(to_chunk(rows[hit.key]), rank, hit, query.mode) for rank, hit in enumerate(hits, 1))
        vectors = {hit.key: rows[hit.key]["vector"] for hit in hits} if query.want_vectors else {}
        return SearchHits(chunks, self.corpus_version, stages, vectors)

    async def get_places(self, places: Sequence[ChunkPlace]) -> Mapping[ChunkPlace, Chunk]:
        """Chunks by document and ordinal."""
        document_ids = equals_any("document_id", sorted({place.document_id for place in places}))
        ordinals = ", ".join(sorted({str(int(place.ordinal)) for place in places}))
        # Coarser than what was asked for, and fast: an index finds the documents.
        wanted = self.chunks.query().where(f"{document_ids} AND ordinal IN ({ordinals})")
        with self._reading():
            rows = await wanted.select(CHUNK_COLUMNS).to_list()
        found = {ChunkPlace(row["document_id"], row["ordinal"]): row for row in rows}
        return {place: to_chunk(found[place]) for place in places if place in found}

    @contextmanager
    def _reading(self) -> Iterator[None]:
        self.readers += 1
        try:
            yield
        finally:
            self.readers -= 1

    async def _dense(self, query: SearchQuery, where: str | None, depth: int) -> _Ranking:
        if query.mode is SearchMode.SPARSE or not self.dimension:
            return _Ranking({}, {})
        started_s = time.perf_counter()
        nearest = self.chunks.query().nearest_to(list(query.vector or ())).distance_type("cosine")
        if self.has_vector_index:
            nearest = nearest.ef(max(MIN_EF, depth * REFINE_FACTOR)).refine_factor(REFINE_FACTOR)
        if where:
            nearest = nearest.where(where)
        found = await nearest.select(["chunk_id", "_distance"]).with_row_id().limit(depth).to_arrow()
        return _ranking(found, [1.0 - distance for distance in found["_distance"].to_pylist()], started_s)

    async def _sparse(self, query: SearchQuery, where: str | None, depth: int) -> _Ranking:
        if query.mode is SearchMode.DENSE:
            return _Ranking({}, {})
        started_s = time.perf_counter()
        # The query object, not the query string: its words are never read as an expression.
        words = MatchQuery(query.text, "search_text")  # type: ignore[call-arg]  # defaults the checker misses
        matching = self.chunks.query().nearest_to_text(words)
        if where:
            matching = matching.where(where)
        found = await matching.select(["chunk_id", "_score"]).with_row_id().limit(depth).to_arrow()
        return _ranking(found, found["_score"].to_pylist(), started_s)

    async def _fetch(
        self, hits: Sequence[FusedHit], row_ids: Mapping[str, int], *, want_vectors: bool
    ) -> Mapping[str, Mapping[str, Any]]:
        if not hits:
            return {}
        columns = [*CHUNK_COLUMNS, "vector"] if want_vectors else CHUNK_COLUMNS
        taken = await self.chunks.take_row_ids([row_ids[hit.key] for hit in hits]).select(columns).to_list()
        return {row["chunk_id"]: row for row in taken}


def _ranking(found: Any, scores: Sequence[float], started_s: float) -> _Ranking:
    keys = found["chunk_id"].to_pylist()
    return _Ranking(
        scores=dict(zip(keys, scores, strict=True)),
        row_ids=dict(zip(keys, found["_rowid"].to_pylist(), strict=True)),
        elapsed_s=time.perf_counter() - started_s,
    )


def _order(query: SearchQuery, dense: _Ranking, sparse: _Ranking) -> tuple[FusedHit, ...]:
    match query.mode:
        case SearchMode.HYBRID:
            return fuse(
                dense.scores, sparse.scores, dense_weight=query.dense_weight, top_k=query.top_k, method=query.fusion
            )
        case SearchMode.DENSE:
            ordered = sorted(dense.scores.items(), key=lambda item: (-item[1], item[0]))
            return tuple(FusedHit(key, score, score, None) for key, score in ordered)
        case SearchMode.SPARSE:
            ordered = sorted(sparse.scores.items(), key=lambda item: (-item[1], item[0]))
            return tuple(FusedHit(key, score, None, score) for key, score in ordered)


def _scored(chunk: Chunk, rank: int, hit: FusedHit, mode: SearchMode) -> ScoredChunk:
    fusion_score = hit.score if mode is SearchMode.HYBRID else None
    return ScoredChunk(chunk, rank, hit.score, hit.dense_score, hit.sparse_score, fusion_score)
