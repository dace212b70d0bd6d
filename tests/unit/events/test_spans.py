"""Spans: the same as a set of numbers, told in runs."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from servicekit.events.spans import Spans

_STEPS = st.lists(st.tuples(st.booleans(), st.integers(1, 12)), max_size=60)


@given(_STEPS, st.integers(0, 13))
def test_spans_are_a_set_told_in_runs(steps: list[tuple[bool, int]], highest: int) -> None:
    """Whatever is added and discarded, the spans cover exactly what a set would hold, ascending, none adjacent."""
    spans, model = Spans(), set[int]()
    for added, number in steps:
        (spans.add if added else spans.discard)(number)
        (model.add if added else model.discard)(number)
    told = list(spans.up_to(12))
    assert [n for first, last in told for n in range(first, last + 1)] == sorted(model)
    assert all(after[0] > before[1] + 1 for before, after in pairwise(told))
    assert [n for first, last in spans.up_to(highest) for n in range(first, last + 1)] == sorted(
        n for n in model if n <= highest
    )
    assert bool(spans) == bool(model)
    assert [number in spans for number in range(14)] == [number in model for number in range(14)]
