"""Fusing the rankings of several queries."""

import pytest

from servicekit.domain.chunk import Chunk, ScoredChunk
from services.retriever.search.rank_fusion import fuse_rankings


def ranking(*ids: str, revision: int = 1) -> list[ScoredChunk]:
    """Chunks of documents of these ids, best first."""
    return [
        ScoredChunk(Chunk(f"{name}/{revision}", name, revision, "", ""), rank, 1 / rank, dense_score=float(rank))
        for rank, name in enumerate(ids, start=1)
    ]


def test_one_ranking_stays_as_it_is() -> None:
    """Scores and order are the search's own."""
    only = ranking("a", "b", "c")
    assert fuse_rankings([only], top_k=2) == tuple(only[:2])


def test_what_several_queries_find_comes_first() -> None:
    """A chunk high in both rankings passes the firsts of each; first in both scores 1."""
    fused = fuse_rankings([ranking("a", "b"), ranking("c", "b")], top_k=3)
    assert [one.chunk.document_id for one in fused] == ["b", "a", "c"]
    assert [one.rank for one in fused] == [1, 2, 3]
    assert fused[0].dense_score == 2.0
    assert fuse_rankings([ranking("a"), ranking("a")], top_k=1)[0].score == pytest.approx(1.0)


def test_of_two_revisions_the_newer_is_kept() -> None:
    """Searches of two moments never mix a document's revisions."""
    fused = fuse_rankings([ranking("a", "b"), ranking("a", revision=2)], top_k=5)
    assert [one.chunk.chunk_id for one in fused] == ["a/2", "b/1"]
