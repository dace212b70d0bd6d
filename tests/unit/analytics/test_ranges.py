"""Ranges behave like the sets of numbers that they stand for."""

from hypothesis import given
from hypothesis import strategies as st

from services.analytics.ranges import Range, common, length, merged, of_numbers, without

_RANGES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8)).map(lambda pair: (pair[0], sum(pair))))


def _numbers(ranges: list[Range]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


@given(one=_RANGES, other=_RANGES)
def test_ranges_are_sets(one: list[Range], other: list[Range]) -> None:
    """Union, difference and intersection hold what those of sets hold, written in one way only."""
    assert merged(one) == of_numbers(_numbers(one))
    assert without(one, other) == of_numbers(_numbers(one) - _numbers(other))
    assert common(one, other) == of_numbers(_numbers(one) & _numbers(other))
    assert length(one) == len(_numbers(one))
