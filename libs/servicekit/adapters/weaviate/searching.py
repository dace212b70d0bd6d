"""Searches in one snapshot of a tenant's corpus. Called by `corpus.py`.

Weaviate has no transactions: a search may meet chunks of a commit that is being written and chunks that are dead and
not yet taken away. Each hit says what it was born for, so they are told apart here; only a search that is then short
of chunks asks again, with the filter that leaves them out.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from weaviate.classes.query import Filter as Weaviate
from weaviate.classes.query import HybridFusion, MetadataQuery
from weaviate.collections.classes.filters import _Filters as WeaviateFilter

from servicekit.adapters.vector_checks import check_model, check_vector
from servicekit.adapters.weaviate.naming import property_name, text_key
from servicekit.adapters.weaviate.predicate import to_weaviate
from servicekit.adapters.weaviate.schema import CHUNK_PROPERTIES, WORDS, to_chunk, words_of
from servicekit.adapters.weaviate.state import CorpusSnapshot
from servicekit.domain.chunk import Chunk, ScoredChunk
from servicekit.domain.filter import FieldKind, check_filter
from servicekit.domain.fusion import FusionMethod, fuse
from servicekit.ports.embedder import Vector
from servicekit.ports.vector_store import MIN_FUSION_DEPTH, SearchHits, SearchMode, SearchQuery

# So many more are asked for than are wanted while chunks are about that must not be shown.
_SPARE = 10
_WORDS = [WORDS]
# As Weaviate 1.39 explains a hybrid score: which ranking found the chunk, and with what score.
_EXPLAINED = re.compile(r"Result Set (keyword|vector),[^)]*\) Document \S+: original score ([-+.\deE]+)")
_EXPLAIN = MetadataQuery(score=True, explain_score=True)
_SCORE = MetadataQuery(score=True)
_DISTANCE = MetadataQuery(distance=True)


@dataclass(slots=True)
class _Hit:
    chunk: Chunk
    score: float
    dense_score: float | None
    sparse_score: float | None
    vector: Vector | None


async def search(chunks: Any, snapshot: CorpusSnapshot, query: SearchQuery, *, unsettled: bool) -> SearchHits:
    """Ask Weaviate for the best chunks that the snapshot shows.

    `chunks` is the tenant's collection; `unsettled` says that a commit is being written.
    """
    where = None
    if query.condition is not None:
        check_filter(query.condition, snapshot.fields)
        where = to_weaviate(query.condition, snapshot.fields)
    if query.mode is not SearchMode.SPARSE:
        check_model(query.model, held=snapshot.model)
        check_vector(query.vector, dimension=snapshot.dimension)
    started_s = time.perf_counter()
    ask = partial(_ask, chunks, query, snapshot)
    spare = _SPARE if unsettled or snapshot.dead or snapshot.aborted else 0
    hits, came = await ask(query.top_k + spare, where)
    if len(hits) < query.top_k and came > len(hits):
        shown = _shown(snapshot)
        hits, _ = await ask(query.top_k, shown if where is None else Weaviate.all_of([where, shown]))
    hits.sort(key=lambda hit: (-hit.score, hit.chunk.chunk_id))
    scored = tuple(_scored(hit, rank, query.mode) for rank, hit in enumerate(hits[: query.top_k], start=1))
    vectors = {hit.chunk.chunk_id: hit.vector for hit in hits[: query.top_k] if hit.vector is not None}
    return SearchHits(scored, snapshot.version, {query.mode.value: time.perf_counter() - started_s}, vectors)


async def _ask(
    chunks: Any, query: SearchQuery, snapshot: CorpusSnapshot, limit: int, where: WeaviateFilter | None
) -> tuple[list[_Hit], int]:
    """The hits that the snapshot shows, and how many came."""
    match query.mode:
        case SearchMode.DENSE:
            found = await _dense(chunks, query, limit, where)
        case SearchMode.SPARSE:
            found = await _sparse(chunks, query, limit, where)
        case SearchMode.HYBRID if query.fusion is FusionMethod.RANKED:
            found = await _ranked(chunks, query, snapshot, limit, where)
        case SearchMode.HYBRID:
            found = await _hybrid(chunks, query, limit, where)
    shown = [hit for born, hit in found if snapshot.shows(hit.chunk.document_id, born)]
    return shown, len(found)


_Found = list[tuple[int, _Hit]]


async def _dense(chunks: Any, query: SearchQuery, limit: int, where: WeaviateFilter | None) -> _Found:
    reply = await chunks.query.near_vector(
        list(query.vector or ()),
        limit=limit,
        filters=where,
        include_vector=query.want_vectors,
        return_properties=CHUNK_PROPERTIES,
        return_metadata=_DISTANCE,
    )
    return [_found(one, cosine, cosine, None) for one in reply.objects for cosine in (1.0 - one.metadata.distance,)]


async def _sparse(chunks: Any, query: SearchQuery, limit: int, where: WeaviateFilter | None) -> _Found:
    words = words_of(query.text)
    if not words:
        return []
    reply = await chunks.query.bm25(
        words,
        query_properties=_WORDS,
        limit=limit,
        filters=where,
        include_vector=query.want_vectors,
        return_properties=CHUNK_PROPERTIES,
        return_metadata=_SCORE,
    )
    return [_found(one, one.metadata.score, None, one.metadata.score) for one in reply.objects]


async def _hybrid(chunks: Any, query: SearchQuery, limit: int, where: WeaviateFilter | None) -> _Found:
    """Weaviate's own relative-score fusion: both rankings 100 deep at least, one call."""
    reply = await chunks.query.hybrid(
        words_of(query.text) or query.text,  # a text without words is among no chunk's words
        vector=list(query.vector or ()),
        alpha=query.dense_weight,
        fusion_type=HybridFusion.RELATIVE_SCORE,
        query_properties=_WORDS,
        limit=limit,
        filters=where,
        include_vector=query.want_vectors,
        return_properties=CHUNK_PROPERTIES,
        return_metadata=_EXPLAIN,
    )
    found = []
    for one in reply.objects:
        scores = {name: float(score) for name, score in _EXPLAINED.findall(one.metadata.explain_score or "")}
        found.append(_found(one, one.metadata.score, scores.get("vector"), scores.get("keyword")))
    return found


async def _ranked(
    chunks: Any, query: SearchQuery, snapshot: CorpusSnapshot, limit: int, where: WeaviateFilter | None
) -> _Found:
    """Fusion by rank, of two searches: Weaviate's own does not say the scores it began with."""
    depth = max(limit, MIN_FUSION_DEPTH)
    dense = await _dense(chunks, query, depth, where)
    sparse = await _sparse(chunks, query, depth, where)
    held = {hit.chunk.chunk_id: (born, hit) for born, hit in (*dense, *sparse) if _is_shown(snapshot, born, hit)}
    fused = fuse(
        {hit.chunk.chunk_id: hit.score for born, hit in dense if _is_shown(snapshot, born, hit)},
        {hit.chunk.chunk_id: hit.score for born, hit in sparse if _is_shown(snapshot, born, hit)},
        dense_weight=query.dense_weight,
        top_k=limit,
        method=FusionMethod.RANKED,
    )
    found: _Found = [
        (
            held[one.key][0],
            _Hit(held[one.key][1].chunk, one.score, one.dense_score, one.sparse_score, held[one.key][1].vector),
        )
        for one in fused
    ]
    hidden = [(born, hit) for born, hit in (*dense, *sparse) if not _is_shown(snapshot, born, hit)]
    return [*found, *hidden]  # so that the caller sees that some came which it may not show


def _is_shown(snapshot: CorpusSnapshot, born: int, hit: _Hit) -> bool:
    return snapshot.shows(hit.chunk.document_id, born)


def _found(one: Any, score: float, dense: float | None, sparse: float | None) -> tuple[int, _Hit]:
    vector = tuple(one.vector["default"]) if one.vector else None
    return int(one.properties["born"]), _Hit(to_chunk(one.properties["body"]), score, dense, sparse, vector)


def _shown(snapshot: CorpusSnapshot) -> WeaviateFilter:
    """What `CorpusSnapshot.shows` says, for Weaviate."""
    born, document = Weaviate.by_property("born"), Weaviate.by_property(property_name("_document_id", FieldKind.TEXT))
    conditions = [born.less_or_equal(snapshot.version)]
    conditions += [born.not_equal(version) for version in snapshot.aborted]
    conditions += [
        Weaviate.any_of([document.not_equal(text_key(document_id)), born.greater_or_equal(death.cutoff)])
        for document_id, death in snapshot.dead.items()
    ]
    return Weaviate.all_of(conditions)


def _scored(hit: _Hit, rank: int, mode: SearchMode) -> ScoredChunk:
    fusion_score = hit.score if mode is SearchMode.HYBRID else None
    return ScoredChunk(hit.chunk, rank, hit.score, hit.dense_score, hit.sparse_score, fusion_score)


def shown_chunks(objects: Sequence[Any], snapshot: CorpusSnapshot) -> Mapping[str, tuple[Any, Chunk]]:
    """Of objects that were read, the current ones, by chunk id."""
    held = {}
    for one in objects:
        chunk = to_chunk(one.properties["body"])
        if snapshot.shows(chunk.document_id, int(one.properties["born"])):
            held[chunk.chunk_id] = (one, chunk)
    return held
