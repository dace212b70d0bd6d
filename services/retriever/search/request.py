"""What a search asks for, and the plan that it becomes once a profile has filled in what it leaves open. Pure.

Made by `convert_search.py`, carried out by `searching.py`.
"""

from dataclasses import dataclass
from typing import TypeVar

from servicekit.domain.filter import Filter
from servicekit.domain.fusion import FusionMethod
from servicekit.ports.vector_store import SearchMode
from services.retriever.search.profiles import SearchProfiles

_T = TypeVar("_T")
# Diversity is chosen among four times as many chunks as are wanted, and at least this many.
MIN_DIVERSITY_POOL = 50
_DIVERSITY_FACTOR = 4
# How deep the ranking of each of several queries goes at least before they are fused.
MIN_RANKING_DEPTH = 50


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What a caller looks for, bounds checked; None where the profile decides."""

    query: str
    alternative_queries: tuple[str, ...] = ()
    profile: str = ""
    condition: Filter | None = None
    mode: SearchMode | None = None
    top_k: int | None = None
    dense_weight: float | None = None
    fusion: FusionMethod | None = None
    score_floor: float | None = None
    rerank: bool | None = None
    mmr_relevance: float | None = None
    neighbours: int | None = None
    want_vector: bool = False
    speculative: bool = False


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """A search with everything decided. `depth` chunks are found for the later stages to choose `top_k` from."""

    profile: str
    queries: tuple[str, ...]
    condition: Filter | None
    mode: SearchMode
    top_k: int
    dense_weight: float
    fusion: FusionMethod
    score_floor: float | None
    rerank: bool
    mmr_relevance: float | None
    neighbours: int
    candidates: int
    want_vector: bool
    speculative: bool

    @property
    def diversify(self) -> bool:
        """Whether diversity counts at all; at 1 relevance alone does."""
        return self.mmr_relevance is not None and self.mmr_relevance < 1.0

    @property
    def depth(self) -> int:
        """How many chunks the search is to find."""
        depth = self.top_k
        if self.rerank:
            depth = max(depth, self.candidates)
        elif self.diversify:
            depth = max(_DIVERSITY_FACTOR * depth, MIN_DIVERSITY_POOL)
        return depth

    @property
    def ranking_depth(self) -> int:
        """How many each query is to find, where there are several."""
        return self.depth if len(self.queries) == 1 else max(self.depth, MIN_RANKING_DEPTH)


def plan_search(request: SearchRequest, profiles: SearchProfiles) -> SearchPlan:
    """The request where it says something, else its profile."""
    name, profile = profiles.choose(request.profile)
    return SearchPlan(
        profile=name,
        queries=tuple(dict.fromkeys((request.query, *request.alternative_queries))),
        condition=request.condition,
        mode=_first(request.mode, profile.mode),
        top_k=_first(request.top_k, profile.top_k),
        dense_weight=_first(request.dense_weight, profile.dense_weight),
        fusion=_first(request.fusion, profile.fusion),
        score_floor=profile.score_floor if request.score_floor is None else request.score_floor,
        rerank=_first(request.rerank, profile.rerank),
        mmr_relevance=profile.mmr_relevance if request.mmr_relevance is None else request.mmr_relevance,
        neighbours=_first(request.neighbours, profile.neighbours),
        candidates=profile.candidates,
        want_vector=request.want_vector,
        speculative=request.speculative,
    )


def _first(stated: _T | None, otherwise: _T) -> _T:
    return otherwise if stated is None else stated
