"""Finds chunks for a query, one named step after another; each step is a module of its own. Called by `server.py`.

embed → search (every query at once) → floor → rerank → diversify → neighbours → passages.
"""

import asyncio
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import structlog

from servicekit.domain.chunk import Chunk, ScoredChunk
from servicekit.errors import BackendTimeout, BackendUnavailable, Overloaded
from servicekit.ports.embedder import Embedder, Vector
from servicekit.ports.reranker import Candidate, Reranker
from servicekit.ports.vector_store import SearchHits, SearchMode, SearchQuery, VectorStore
from servicekit.rpc.deadline import current_budget
from services.retriever.index.embedders import TenantEmbedders
from services.retriever.search.diversity import diversify
from services.retriever.search.keywords import keywords
from services.retriever.search.passages import in_passages, neighbour_places, with_neighbours
from services.retriever.search.profiles import SearchProfiles
from services.retriever.search.query_cache import QueryCache
from services.retriever.search.rank_fusion import fuse_rankings
from services.retriever.search.request import SearchPlan, SearchRequest, plan_search

log = structlog.get_logger()

_Result = TypeVar("_Result")

RERANKER_UNAVAILABLE = "RERANKER_UNAVAILABLE"
RERANKER_NOT_CONFIGURED = "RERANKER_NOT_CONFIGURED"
# A search goes on without a reranker that takes longer, or longer than this part of the time that is left.
MAX_RERANK_S = 2.0
RERANK_SHARE = 0.5
_STAGES = ("embed", "dense", "sparse", "fuse", "hybrid", "rerank", "diversify", "expand")


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """Chunks, best first; the query's vector where it was asked for; seconds per stage in the order they ran.

    `reranker` is empty unless it ordered the chunks; `degradations` names what was asked for and not done.
    """

    chunks: tuple[ScoredChunk, ...]
    corpus_version: int
    embedding_model: str
    profile: str
    vector: Vector | None = None
    stages_s: Mapping[str, float] = field(default_factory=dict)
    reranker: str = ""
    degradations: tuple[str, ...] = ()


@dataclass(slots=True)
class _Run:
    """One search under way."""

    tenant: str
    plan: SearchPlan
    embedder: Embedder
    chunks: tuple[ScoredChunk, ...] = ()
    query_vectors: tuple[Vector | None, ...] = ()
    vectors: dict[str, Vector] = field(default_factory=dict)
    corpus_version: int = 0
    reranker: str = ""
    degradations: list[str] = field(default_factory=list)
    stages_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        started_s = time.perf_counter()
        try:
            yield
        finally:
            self.stages_s[stage] = self.stages_s.get(stage, 0.0) + time.perf_counter() - started_s


class Searcher:
    """Searches one store; what a request leaves open is decided by its profile."""

    def __init__(
        self,
        *,
        store: VectorStore,
        embedders: TenantEmbedders,
        profiles: SearchProfiles,
        cache: QueryCache,
        reranker: Reranker | None = None,
    ) -> None:
        self._store = store
        self._embedders = embedders
        self._profiles = profiles
        self._cache = cache
        self._reranker = reranker

    async def search(self, tenant: str, request: SearchRequest) -> SearchAnswer:
        """Search; queries are embedded ahead of any document that waits.

        Ranks run from 1 in the order of the passages; a chunk's `score` is that of the last stage that scored it. At
        most `top_k` chunks are found; neighbours come in addition. The floor is of the search's own scores.

        Raises:
            InvalidRequest: the filter does not fit the corpus.
            NotReady: the index is of another embedding model.
            Overloaded: too many queries wait for the embedder.
            BackendUnavailable: the store or the embedder is away.
        """
        plan = plan_search(request, self._profiles)
        return await self._embedders.run(tenant, lambda embedder: self._answer(_Run(tenant, plan, embedder)))

    async def _answer(self, run: _Run) -> SearchAnswer:
        await self._embed(run)
        await self._search(run)
        await self._rerank(run)
        _choose(run)
        await self._expand(run)
        return SearchAnswer(
            chunks=in_passages(run.chunks),
            corpus_version=run.corpus_version,
            embedding_model=run.embedder.model.id,
            profile=run.plan.profile,
            vector=run.query_vectors[0] if run.plan.want_vector else None,
            stages_s={stage: run.stages_s[stage] for stage in _STAGES if stage in run.stages_s},
            reranker=run.reranker,
            degradations=tuple(run.degradations),
        )

    async def _embed(self, run: _Run) -> None:
        plan = run.plan
        needed = plan.queries if plan.mode is not SearchMode.SPARSE else plan.queries[:1] if plan.want_vector else ()
        if needed:
            with run.timed("embed"):
                run.query_vectors = tuple(await _all([self._vector_of(run, query) for query in needed]))
        run.query_vectors += (None,) * (len(plan.queries) - len(needed))

    async def _vector_of(self, run: _Run, query: str) -> Vector:
        """A query that its guard has not allowed yet leaves no trace in the cache, and finds none."""
        if run.plan.speculative:
            return await run.embedder.embed_query(query)
        return await self._cache.embed_query(run.tenant, run.embedder, query)

    async def _search(self, run: _Run) -> None:
        plan = run.plan
        answers = await _all(
            [
                self._store.search(run.tenant, self._store_query(run, query, vector))
                for query, vector in zip(plan.queries, run.query_vectors, strict=True)
            ]
        )
        _note_stages(run, answers)
        for hits in answers:
            run.vectors |= hits.vectors
        # Of the oldest state that was searched: nothing newer is promised.
        run.corpus_version = min(hits.corpus_version for hits in answers)
        floor = plan.score_floor
        rankings = [[one for one in hits.chunks if floor is None or one.score >= floor] for hits in answers]
        if len(rankings) > 1:
            with run.timed("fuse"):
                run.chunks = fuse_rankings(rankings, top_k=plan.depth)
        else:
            run.chunks = tuple(rankings[0])

    def _store_query(self, run: _Run, text: str, vector: Vector | None) -> SearchQuery:
        plan = run.plan
        sparse = plan.mode is SearchMode.SPARSE
        for_reranker = plan.rerank and self._reranker is not None and self._reranker.wants_vectors
        return SearchQuery(
            mode=plan.mode,
            text=keywords(text),
            vector=None if sparse else vector,
            top_k=plan.ranking_depth,
            model="" if sparse else run.embedder.model.id,
            condition=plan.condition,
            dense_weight=plan.dense_weight,
            fusion=plan.fusion,
            want_vectors=plan.diversify or for_reranker,
        )

    async def _rerank(self, run: _Run) -> None:
        """Order the chunks by the reranker, or leave them as they are and say so."""
        if not run.plan.rerank or not run.chunks:
            return
        if self._reranker is None:
            run.degradations.append(RERANKER_NOT_CONFIGURED)
            return
        candidates = [
            Candidate(words_of(one.chunk), one.score, run.vectors.get(one.chunk.chunk_id)) for one in run.chunks
        ]
        with run.timed("rerank"):
            try:
                async with asyncio.timeout(_rerank_bound_s()):
                    scores = await self._reranker.rerank(run.plan.queries[0], candidates)
            except (BackendUnavailable, BackendTimeout, Overloaded, TimeoutError) as exc:
                run.degradations.append(RERANKER_UNAVAILABLE)
                if not run.plan.speculative:
                    log.warning("search.not_reranked", reason=getattr(exc, "reason", "TIMEOUT"))
                return
            run.chunks = _ordered(run.chunks, scores)
            run.reranker = self._reranker.id

    async def _expand(self, run: _Run) -> None:
        width = run.plan.neighbours
        if not width or not run.chunks:
            return
        with run.timed("expand"):
            places = neighbour_places(run.chunks, width=width)
            beside = await self._store.get_places(run.tenant, places)
            run.chunks = with_neighbours(run.chunks, beside, width=width)


async def _all(works: Sequence[Coroutine[Any, Any, _Result]]) -> Sequence[_Result]:
    """All at once; one alone, which is the rule, without a task of its own."""
    return [await works[0]] if len(works) == 1 else await asyncio.gather(*works)


def words_of(chunk: Chunk) -> str:
    """What a chunk is judged by: title and headings before its text."""
    return f"{chunk.context}\n{chunk.text}" if chunk.context else chunk.text


def _rerank_bound_s() -> float:
    budget = current_budget()
    return MAX_RERANK_S if budget is None else min(MAX_RERANK_S, RERANK_SHARE * budget.remaining_s())


def _note_stages(run: _Run, answers: Sequence[SearchHits]) -> None:
    """Several queries run at the same time: a stage took as long as the slowest."""
    for stage in _STAGES:
        lengths = [hits.stages_s[stage] for hits in answers if stage in hits.stages_s]
        if lengths:
            run.stages_s[stage] = max(lengths)


def _ordered(chunks: Sequence[ScoredChunk], scores: Sequence[float]) -> tuple[ScoredChunk, ...]:
    order = sorted(range(len(chunks)), key=lambda place: -scores[place])  # stable: equals keep their order
    return tuple(
        replace(chunks[place], rank=rank, score=scores[place], rerank_score=scores[place])
        for rank, place in enumerate(order, start=1)
    )


def _choose(run: _Run) -> None:
    """The `top_k` best, or the best that are unlike each other."""
    plan = run.plan
    if plan.mmr_relevance is None or not plan.diversify:
        run.chunks = run.chunks[: plan.top_k]
        return
    with run.timed("diversify"):
        run.chunks = diversify(run.chunks, run.vectors, relevance=plan.mmr_relevance, top_k=plan.top_k)
