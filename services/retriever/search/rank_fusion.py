"""Fuses the rankings of one question asked in several ways. Pure; called by `searching.py`."""

from collections.abc import Sequence
from dataclasses import replace

from servicekit.domain.chunk import ScoredChunk
from servicekit.domain.fusion import RANK_CONSTANT


def fuse_rankings(rankings: Sequence[Sequence[ScoredChunk]], *, top_k: int) -> tuple[ScoredChunk, ...]:
    """The rankings as one by reciprocal ranks, scores 0 to 1 (first in all of them); one ranking stays as it is.

    A chunk keeps the stage scores of the first ranking that found it. Rankings may be of moments between which a
    document was replaced: of two revisions only the newer is kept.
    """
    if len(rankings) == 1:
        return tuple(rankings[0][:top_k])
    newest: dict[str, int] = {}
    for one in (one for ranking in rankings for one in ranking):
        newest[one.chunk.document_id] = max(one.chunk.revision, newest.get(one.chunk.document_id, 0))
    worth: dict[str, float] = {}
    first: dict[str, ScoredChunk] = {}
    for ranking in rankings:
        current = (one for one in ranking if one.chunk.revision == newest[one.chunk.document_id])
        for rank, one in enumerate(current, start=1):
            key = one.chunk.chunk_id
            first.setdefault(key, one)
            share = (RANK_CONSTANT + 1) / (RANK_CONSTANT + rank) / len(rankings)
            worth[key] = worth.get(key, 0.0) + share
    ordered = sorted(worth, key=lambda key: (-worth[key], key))[:top_k]
    return tuple(replace(first[key], rank=rank, score=worth[key]) for rank, key in enumerate(ordered, start=1))
