"""Reads search requests and filters, writes search answers. The part of `convert.py` that has bounds to check."""

import math
import re
from collections.abc import Mapping
from typing import Literal

from google.protobuf.duration_pb2 import Duration

from binnacle.retriever.v1 import retriever_service_pb2 as rpc
from binnacle.type.v1 import chunk_pb2
from servicekit.domain.chunk import ScoredChunk
from servicekit.domain.filter import All, Any, Comparison, Filter, Not, Operator
from servicekit.domain.fusion import FusionMethod
from servicekit.errors import InvalidRequest
from servicekit.ports.vector_store import SearchMode
from servicekit.rpc.metadata import scalar_from_proto
from services.retriever.convert import chunk_to
from services.retriever.search.profiles import MAX_NEIGHBOURS, MAX_TOP_K
from services.retriever.search.request import SearchRequest
from services.retriever.search.searching import SearchAnswer

MAX_QUERY_CHARS = 8_192
MAX_ALTERNATIVES = 4
MAX_FILTERS = 32
MAX_DEPTH = 8
MAX_VALUES = 256
MAX_VALUE_CHARS = 1_024
MAX_HASHES = 256
_HASH = re.compile(r"[0-9a-f]{64}")
_MODES: Mapping[int, SearchMode | None] = {
    rpc.SEARCH_MODE_UNSPECIFIED: None,
    rpc.SEARCH_MODE_DENSE: SearchMode.DENSE,
    rpc.SEARCH_MODE_SPARSE: SearchMode.SPARSE,
    rpc.SEARCH_MODE_HYBRID: SearchMode.HYBRID,
}
_FUSIONS: Mapping[int, FusionMethod | None] = {
    rpc.FUSION_UNSPECIFIED: None,
    rpc.FUSION_RELATIVE_SCORE: FusionMethod.RELATIVE_SCORE,
    rpc.FUSION_RANKED: FusionMethod.RANKED,
}
_OPERATORS: Mapping[int, Operator] = {
    chunk_pb2.OPERATOR_EQUAL: Operator.EQUAL,
    chunk_pb2.OPERATOR_NOT_EQUAL: Operator.NOT_EQUAL,
    chunk_pb2.OPERATOR_IN: Operator.IN,
    chunk_pb2.OPERATOR_LESS: Operator.LESS,
    chunk_pb2.OPERATOR_LESS_EQUAL: Operator.LESS_EQUAL,
    chunk_pb2.OPERATOR_GREATER: Operator.GREATER,
    chunk_pb2.OPERATOR_GREATER_EQUAL: Operator.GREATER_EQUAL,
    chunk_pb2.OPERATOR_CONTAINS: Operator.CONTAINS,
}


def search_from(request: rpc.SearchChunksRequest) -> SearchRequest:
    """The search that a request asks for.

    Raises:
        InvalidRequest: names the field that is out of its bounds.
    """
    _check_query(request.query, "query")
    if not 0 <= request.top_k <= MAX_TOP_K:
        raise InvalidRequest(f"top_k must be 1..{MAX_TOP_K}, got {request.top_k}", field="top_k")
    if request.mode not in _MODES:
        raise InvalidRequest(f"mode must be one of 1, 2, 3 (SearchMode), got {request.mode}", field="mode")
    return SearchRequest(
        query=request.query,
        alternative_queries=_alternatives_from(request),
        profile=request.profile,
        condition=filter_from(request.filter) if request.HasField("filter") else None,
        mode=_MODES[request.mode],
        top_k=request.top_k or None,
        dense_weight=_share_from(request, "dense_weight"),
        fusion=_fusion_from(request),
        score_floor=_floor_from(request),
        rerank=request.rerank if request.HasField("rerank") else None,
        mmr_relevance=_share_from(request, "mmr_relevance"),
        neighbours=_neighbours_from(request),
        want_vector=request.include_query_vector,
        speculative=request.speculative,
    )


def _alternatives_from(request: rpc.SearchChunksRequest) -> tuple[str, ...]:
    count = len(request.alternative_queries)
    if count > MAX_ALTERNATIVES:
        raise InvalidRequest(
            f"alternative_queries must be at most {MAX_ALTERNATIVES}, got {count}", field="alternative_queries"
        )
    for place, query in enumerate(request.alternative_queries):
        _check_query(query, f"alternative_queries[{place}]")
    return tuple(request.alternative_queries)


def _check_query(query: str, name: str) -> None:
    if not query.strip():
        raise InvalidRequest(f"{name} must hold more than blank space: say what to look for", field=name)
    if len(query) > MAX_QUERY_CHARS:
        problem = f"{name} must have at most {MAX_QUERY_CHARS} characters, got {len(query)}"
        raise InvalidRequest(problem, field=name, reason="QUERY_TOO_LONG")


def _share_from(request: rpc.SearchChunksRequest, name: Literal["dense_weight", "mmr_relevance"]) -> float | None:
    if not request.HasField(name):
        return None
    share: float = getattr(request, name)
    if not 0.0 <= share <= 1.0:
        raise InvalidRequest(f"{name} must be 0..1, got {share!r}", field=name)
    return share


def _fusion_from(request: rpc.SearchChunksRequest) -> FusionMethod | None:
    if request.fusion not in _FUSIONS:
        raise InvalidRequest(f"fusion must be one of 1, 2 (Fusion), got {request.fusion}", field="fusion")
    return _FUSIONS[request.fusion]


def _floor_from(request: rpc.SearchChunksRequest) -> float | None:
    if not request.HasField("score_floor"):
        return None
    if not math.isfinite(request.score_floor):
        raise InvalidRequest(f"score_floor must be finite, got {request.score_floor!r}", field="score_floor")
    return request.score_floor


def _neighbours_from(request: rpc.SearchChunksRequest) -> int | None:
    if not request.HasField("neighbours"):
        return None
    if not 0 <= request.neighbours <= MAX_NEIGHBOURS:
        raise InvalidRequest(f"neighbours must be 0..{MAX_NEIGHBOURS}, got {request.neighbours}", field="neighbours")
    return request.neighbours


def filter_from(message: chunk_pb2.Filter, *, path: str = "filter", depth: int = 1) -> Filter:
    """The condition, with the place of each comparison in the request.

    Raises:
        InvalidRequest: empty, too deep, too wide, or a comparison without field, operator or values.
    """
    if depth > MAX_DEPTH:
        raise InvalidRequest(f"{path} nests deeper than {MAX_DEPTH}: flatten it", field=path, reason="FILTER_TOO_DEEP")
    match message.WhichOneof("condition"):
        case "all":
            return All(_filters(message.all, f"{path}.all", depth))
        case "any":
            return Any(_filters(message.any, f"{path}.any", depth))
        case "none":
            return Not(filter_from(message.none, path=f"{path}.none", depth=depth + 1))
        case "comparison":
            return _comparison(message.comparison, f"{path}.comparison")
        case _:
            raise InvalidRequest(f"{path} must hold a condition, got none: leave it out for all", field=path)


def _filters(message: chunk_pb2.FilterList, path: str, depth: int) -> tuple[Filter, ...]:
    count = len(message.filters)
    if not 1 <= count <= MAX_FILTERS:
        raise InvalidRequest(
            f"{path}.filters must be 1..{MAX_FILTERS} conditions, got {count}", field=f"{path}.filters"
        )
    return tuple(
        filter_from(inner, path=f"{path}.filters[{place}]", depth=depth + 1)
        for place, inner in enumerate(message.filters)
    )


def _comparison(message: chunk_pb2.Comparison, path: str) -> Comparison:
    operator = _OPERATORS.get(message.operator)
    if operator is None:
        raise InvalidRequest(
            f"{path}.operator must be one of 1..{max(_OPERATORS)} (Operator), got {message.operator}",
            field=f"{path}.operator",
        )
    most = MAX_VALUES if operator is Operator.IN else 1
    count = len(message.values)
    if not 1 <= count <= most:
        wanted = f"1..{MAX_VALUES} values" if operator is Operator.IN else "exactly one value"
        raise InvalidRequest(f"{path}.values must be {wanted} for {operator}, got {count}", field=f"{path}.values")
    values = tuple(
        scalar_from_proto(value, path=f"{path}.values[{place}]") for place, value in enumerate(message.values)
    )
    for place, value in enumerate(values):
        too_long = isinstance(value, str) and len(value) > MAX_VALUE_CHARS
        if too_long or (isinstance(value, float) and not math.isfinite(value)):
            raise InvalidRequest(
                f"{path}.values[{place}] must be finite, or at most {MAX_VALUE_CHARS} characters",
                field=f"{path}.values[{place}]",
            )
    return Comparison(message.field, operator, values, path)


def hashes_from(request: rpc.BatchGetChunksRequest) -> list[str]:
    """The content hashes of a request.

    Raises:
        InvalidRequest: none, too many, or something that is no hash.
    """
    hashes = list(request.content_hashes)
    if not 1 <= len(hashes) <= MAX_HASHES:
        raise InvalidRequest(f"content_hashes must be 1..{MAX_HASHES}, got {len(hashes)}", field="content_hashes")
    for place, value in enumerate(hashes):
        if not _HASH.fullmatch(value):
            raise InvalidRequest(
                f"content_hashes[{place}] must be 64 lower-case hexadecimal digits, got {value[:80]!r}",
                field=f"content_hashes[{place}]",
            )
    return hashes


def answer_to(answer: SearchAnswer) -> rpc.SearchChunksResponse:
    """The response of SearchChunks."""
    response = rpc.SearchChunksResponse(
        chunks=[scored_to(scored) for scored in answer.chunks],
        corpus_version=answer.corpus_version,
        embedding_model=answer.embedding_model,
        query_vector=answer.vector,
        profile=answer.profile,
        reranker=answer.reranker,
        degradations=answer.degradations,
    )
    for stage, elapsed_s in answer.stages_s.items():
        response.timings.add(stage=stage, duration=_duration(elapsed_s))
    return response


def scored_to(scored: ScoredChunk) -> chunk_pb2.ScoredChunk:
    """A chunk with its place and the scores of the stages that scored it."""
    return chunk_pb2.ScoredChunk(
        chunk=chunk_to(scored.chunk),
        rank=scored.rank,
        score=scored.score,
        dense_score=scored.dense_score,
        sparse_score=scored.sparse_score,
        fusion_score=scored.fusion_score,
        rerank_score=scored.rerank_score,
        mmr_score=scored.mmr_score,
        neighbour=scored.neighbour,
        passage=scored.passage,
        overlap_chars=scored.overlap_chars,
    )


def _duration(elapsed_s: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(elapsed_s * 1e6))
    return duration
