"""Relative-score fusion of two rankings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.domain.fusion import fuse

SCORES = st.dictionaries(st.text(max_size=3), st.floats(-1e6, 1e6), max_size=12)


def test_each_ranking_is_scaled_by_its_own_extremes() -> None:
    """Best counts 1, worst 0, a key that a ranking did not find counts 0 there."""
    hits = fuse({"a": 0.9, "b": 0.5, "c": 0.1}, {"b": 12.0, "d": 2.0}, dense_weight=0.5, top_k=10)
    assert [(hit.key, pytest.approx(hit.score)) for hit in hits] == [("b", 0.75), ("a", 0.5), ("c", 0.0), ("d", 0.0)]
    assert (hits[0].dense_score, hits[0].sparse_score) == (0.5, 12.0)
    assert hits[1].sparse_score is None


def test_one_hit_alone_counts_fully() -> None:
    """A ranking of one, or of equals, has no scale: all of it counts 1."""
    assert [hit.score for hit in fuse({"a": 0.2}, {}, dense_weight=0.5, top_k=5)] == [0.5]
    assert {hit.score for hit in fuse({"a": 3.0, "b": 3.0}, {}, dense_weight=1.0, top_k=5)} == {1.0}


@given(dense=SCORES, sparse=SCORES, weight=st.floats(0, 1), top_k=st.integers(1, 8))
def test_any_rankings_fuse_into_one(
    dense: dict[str, float], sparse: dict[str, float], weight: float, top_k: int
) -> None:
    """Bounded, ordered, without repetition, and the same every time."""
    hits = fuse(dense, sparse, dense_weight=weight, top_k=top_k)
    assert len(hits) == min(top_k, len(dense.keys() | sparse.keys()))
    assert len({hit.key for hit in hits}) == len(hits)
    assert all(0.0 <= hit.score <= 1.0 + 1e-9 for hit in hits)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits == fuse(dict(reversed(dense.items())), dict(reversed(sparse.items())), dense_weight=weight, top_k=top_k)
