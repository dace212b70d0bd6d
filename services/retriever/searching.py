"""Finds chunks for a query: embed it unless only words count, ask the store, apply the floor. Called by `server.py`."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from servicekit.domain.chunk import ScoredChunk
from servicekit.domain.filter import Filter
from servicekit.ports.embedder import Embedder, Vector
from servicekit.ports.vector_store import SearchMode, SearchQuery, VectorStore


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What a caller looks for; bounds are checked where it is read."""

    query: str
    mode: SearchMode
    top_k: int
    condition: Filter | None = None
    dense_weight: float = 0.5
    score_floor: float | None = None


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """Chunks, best first; the query's vector where one was needed; seconds per stage in the order they ran."""

    chunks: tuple[ScoredChunk, ...]
    corpus_version: int
    embedding_model: str
    vector: Vector | None
    stages_s: Mapping[str, float]


class Searcher:
    """Searches one store with one embedder."""

    def __init__(self, *, store: VectorStore, embedder: Embedder) -> None:
        self._store = store
        self._embedder = embedder

    async def search(self, tenant: str, request: SearchRequest, *, want_vector: bool = False) -> SearchAnswer:
        """Search; queries are embedded ahead of any document that waits.

        Raises:
            InvalidRequest: the filter does not fit the corpus.
            Overloaded: too many queries wait for the embedder.
            BackendUnavailable: the store or the embedder is away.
        """
        stages: dict[str, float] = {}
        vector: Vector | None = None
        if want_vector or request.mode is not SearchMode.SPARSE:
            started_s = time.perf_counter()
            vector = await self._embedder.embed_query(request.query)
            stages["embed"] = time.perf_counter() - started_s
        hits = await self._store.search(
            tenant,
            SearchQuery(
                mode=request.mode,
                text=request.query,
                vector=vector,
                top_k=request.top_k,
                model=self._embedder.model.id,
                condition=request.condition,
                dense_weight=request.dense_weight,
            ),
        )
        floor = request.score_floor
        chunks = hits.chunks if floor is None else tuple(one for one in hits.chunks if one.score >= floor)
        stages |= {stage: hits.stages_s[stage] for stage in ("dense", "sparse", "fuse") if stage in hits.stages_s}
        return SearchAnswer(chunks, hits.corpus_version, self._embedder.model.id, vector, stages)
