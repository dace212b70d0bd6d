"""One consistent state of a tenant's live chunks, and the searches in it.

Made by `tenant.py` after each commit. A table handle that no one refreshes keeps showing the version it was opened
at: the two rankings of a hybrid search and the chunks fetched for them therefore agree, whatever is written meanwhile.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lancedb.query import MatchQuery
from lancedb.table import AsyncTable

from servicekit.adapters.lancedb.predicate import to_sql
from servicekit.adapters.lancedb.schema import CHUNK_COLUMNS, to_chunk
from servicekit.domain.chunk import ScoredChunk
from servicekit.domain.filter import FieldKind, check_filter
from servicekit.domain.fusion import FusedHit, fuse
from servicekit.errors import InvalidRequest
from servicekit.ports.embedder import Vector
from servicekit.ports.vector_store import MIN_FUSION_DEPTH, SearchHits, SearchMode, SearchQuery

# Recall .9985 at 100,000 chunks with the index of `maintenance.py`; `ef` must reach depth times refinement.
MIN_EF = 200
REFINE_FACTOR = 3


@dataclass(slots=True)
class _Ranking:
    """Scores by chunk id, best first, and where each chunk lies."""

    scores: dict[str, float]
    row_ids: dict[str, int]
    elapsed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The live chunks at one corpus version."""

    chunks: AsyncTable
    dimension: int
    corpus_version: int
    fields: Mapping[str, FieldKind]
    has_vector_index: bool

    async def search(self, query: SearchQuery) -> SearchHits:
        """Both rankings at once where both are asked for, fused, and the best chunks fetched."""
        where = None
        if query.condition is not None:
            check_filter(query.condition, self.fields)
            where = to_sql(query.condition)
        depth = max(query.top_k, MIN_FUSION_DEPTH) if query.mode is SearchMode.HYBRID else query.top_k
        dense, sparse = await asyncio.gather(self._dense(query, where, depth), self._sparse(query, where, depth))
        started_s = time.perf_counter()
        hits = _order(query, dense, sparse)
        chunks = await self._fetch(hits, dense.row_ids | sparse.row_ids)
        stages = {"fuse": time.perf_counter() - started_s}
        if query.mode is not SearchMode.SPARSE:
            stages["dense"] = dense.elapsed_s
        if query.mode is not SearchMode.DENSE:
            stages["sparse"] = sparse.elapsed_s
        return SearchHits(chunks, self.corpus_version, stages)

    async def _dense(self, query: SearchQuery, where: str | None, depth: int) -> _Ranking:
        if query.mode is SearchMode.SPARSE:
            return _Ranking({}, {})
        started_s = time.perf_counter()
        nearest = self.chunks.query().nearest_to(self._checked(query.vector)).distance_type("cosine")
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

    def _checked(self, vector: Vector | None) -> list[float]:
        if vector is None or len(vector) != self.dimension:
            given = "none" if vector is None else f"{len(vector)} values"
            raise InvalidRequest(f"a dense search needs a vector of {self.dimension}, got {given}", field="vector")
        return list(vector)

    async def _fetch(self, hits: Sequence[FusedHit], row_ids: Mapping[str, int]) -> tuple[ScoredChunk, ...]:
        if not hits:
            return ()
        taken = await self.chunks.take_row_ids([row_ids[hit.key] for hit in hits]).select(CHUNK_COLUMNS).to_list()
        rows: dict[str, Mapping[str, Any]] = {row["chunk_id"]: row for row in taken}
        return tuple(
            ScoredChunk(to_chunk(rows[hit.key]), rank, hit.score, hit.dense_score, hit.sparse_score)
            for rank, hit in enumerate(hits, start=1)
        )


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
            return fuse(dense.scores, sparse.scores, dense_weight=query.dense_weight, top_k=query.top_k)
        case SearchMode.DENSE:
            ordered = sorted(dense.scores.items(), key=lambda item: (-item[1], item[0]))
            return tuple(FusedHit(key, score, score, None) for key, score in ordered)
        case SearchMode.SPARSE:
            ordered = sorted(sparse.scores.items(), key=lambda item: (-item[1], item[0]))
            return tuple(FusedHit(key, score, None, score) for key, score in ordered)
