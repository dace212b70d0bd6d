"""Fuses a vector ranking and a full-text ranking into one. Pure; used by stores that cannot do it themselves."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

# Of reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009).
RANK_CONSTANT = 60


class FusionMethod(StrEnum):
    """How two rankings become one."""

    RELATIVE_SCORE = "relative_score"
    RANKED = "ranked"


@dataclass(frozen=True, slots=True)
class FusedHit:
    """One key with its fused score (0 to 1) and the scores of the rankings that found it."""

    key: str
    score: float
    dense_score: float | None
    sparse_score: float | None


def fuse(
    dense: Mapping[str, float],
    sparse: Mapping[str, float],
    *,
    dense_weight: float,
    top_k: int,
    method: FusionMethod = FusionMethod.RELATIVE_SCORE,
) -> tuple[FusedHit, ...]:
    """Both rankings as one, scores 0 to 1.

    Relative score: each ranking's scores scaled to 0..1 by its own extremes, then weighted; both should be at least 100
    deep, since the minimum sets the scale. Ranked: reciprocal ranks, weighted, scaled so that first in both is 1.
    A key that one ranking did not find counts 0 there. Equal scores are ordered by key, so that the same search gives
    the same order.
    """
    scaled = _scale if method is FusionMethod.RELATIVE_SCORE else _reciprocal_ranks
    scaled_dense, scaled_sparse = scaled(dense), scaled(sparse)
    hits = [
        FusedHit(
            key=key,
            score=dense_weight * scaled_dense.get(key, 0.0) + (1.0 - dense_weight) * scaled_sparse.get(key, 0.0),
            dense_score=dense.get(key),
            sparse_score=sparse.get(key),
        )
        for key in dense.keys() | sparse.keys()
    ]
    hits.sort(key=lambda hit: (-hit.score, hit.key))
    return tuple(hits[:top_k])


def _reciprocal_ranks(scores: Mapping[str, float]) -> dict[str, float]:
    ordered = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return {key: (RANK_CONSTANT + 1) / (RANK_CONSTANT + rank) for rank, (key, _) in enumerate(ordered, start=1)}


def _scale(scores: Mapping[str, float]) -> dict[str, float]:
    if not scores:
        return {}
    low, high = min(scores.values()), max(scores.values())
    if high <= low:
        return dict.fromkeys(scores, 1.0)
    return {key: (score - low) / (high - low) for key, score in scores.items()}
