"""Diversity: the best stays first, near copies move back, scores never rise."""

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from servicekit.domain.chunk import Chunk, ScoredChunk
from services.retriever.search.diversity import diversify

ANGLES = st.lists(st.floats(0, math.tau), min_size=1, max_size=20)


def ranked(count: int) -> list[ScoredChunk]:
    """Found chunks, best first."""
    return [ScoredChunk(Chunk(str(n), "d", 1, "", "", ordinal=n), n + 1, 1 - n / 100) for n in range(count)]


def circle(angles: list[float]) -> dict[str, tuple[float, ...]]:
    """Unit vectors by chunk id."""
    return {str(place): (math.cos(angle), math.sin(angle)) for place, angle in enumerate(angles)}


def test_a_copy_of_the_best_gives_way_to_something_else() -> None:
    """At half and half the second best, which says the same, comes after the third."""
    chosen = diversify(ranked(3), circle([0.0, 0.01, math.pi / 2]), relevance=0.5, top_k=2)
    assert [one.chunk.chunk_id for one in chosen] == ["0", "2"]
    assert [one.rank for one in chosen] == [1, 2]
    assert all(one.mmr_score == one.score for one in chosen)


def test_without_vectors_the_order_stays() -> None:
    """What is like nothing known cannot be too like."""
    chosen = diversify(ranked(4), {}, relevance=0.3, top_k=4)
    assert [one.chunk.chunk_id for one in chosen] == ["0", "1", "2", "3"]


def test_nothing_found_is_nothing_chosen() -> None:
    """An empty list stays empty."""
    assert diversify([], {}, relevance=0.5, top_k=5) == ()


@given(angles=ANGLES, relevance=st.floats(0, 1), top_k=st.integers(1, 25))
def test_the_chosen_are_found_ones_led_by_the_best(angles: list[float], relevance: float, top_k: int) -> None:
    """A selection without repeats, the best first, as many as asked for, scores that never rise."""
    found = ranked(len(angles))
    chosen = diversify(found, circle(angles), relevance=relevance, top_k=top_k)
    ids = [one.chunk.chunk_id for one in chosen]
    assert len(ids) == len(set(ids)) == min(top_k, len(found))
    assert ids[0] == "0"
    scores = [one.score for one in chosen]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(scores))


@given(angles=ANGLES)
def test_relevance_alone_keeps_the_order(angles: list[float]) -> None:
    """At 1 nothing moves."""
    chosen = diversify(ranked(len(angles)), circle(angles), relevance=1.0, top_k=len(angles))
    assert [one.chunk.chunk_id for one in chosen] == [str(place) for place in range(len(angles))]
