"""What is missing follows from what was reported and what is stored, whatever the order of events."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.analytics.ledger import (
    Mark,
    ProducerState,
    Stored,
    length,
    missing_ranges,
    producer_state,
    union_length,
    unreported,
)

_NOW = datetime(2026, 5, 1, tzinfo=UTC)
_SEQUENCES = st.sets(st.integers(1, 40))


def _stored(sequences: set[int]) -> Stored:
    holes, previous = [], 0
    for sequence in sorted(sequences):
        if sequence > previous + 1:
            holes.append((previous + 1, sequence - 1))
        previous = sequence
    return Stored(count=len(sequences), last=previous, holes=holes)


@given(sequences=_SEQUENCES, accepted=st.integers(0, 45), abandoned=_SEQUENCES)
def test_missing_is_accepted_less_stored_less_abandoned(
    sequences: set[int], accepted: int, abandoned: set[int]
) -> None:
    """The ranges hold exactly the sequences that were promised and are not there."""
    ranges = missing_ranges(Mark(accepted, frozenset(abandoned)), _stored(sequences))
    listed = [number for first, last in ranges for number in range(first, last + 1)]
    assert listed == sorted(set(range(1, accepted + 1)) - sequences - abandoned)
    assert length(ranges) == len(listed)


@given(sequences=_SEQUENCES, accepted=st.integers(0, 45))
def test_unreported_is_what_is_stored_beyond_the_mark(sequences: set[int], accepted: int) -> None:
    """Holes beyond the mark are nobody's loss and are not counted as stored."""
    assert unreported(Mark(accepted), _stored(sequences)) == len([one for one in sequences if one > accepted])


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)).map(lambda pair: (pair[0], sum(pair)))))
def test_overlapping_gaps_are_counted_once(ranges: list[tuple[int, int]]) -> None:
    """Two reporters of one eviction do not double it."""
    assert union_length(ranges) == len({one for first, last in ranges for one in range(first, last + 1)})


@pytest.mark.parametrize(
    ("final", "silent_s", "state"),
    [
        (False, 0, ProducerState.OPEN),
        (False, 60, ProducerState.OPEN),
        (False, 61, ProducerState.CLOSED_UNCLEAN),
        (True, 3600, ProducerState.CLOSED),
    ],
)
def test_a_producer_closes_by_its_word_or_by_silence(final: bool, silent_s: int, state: ProducerState) -> None:
    """After 60 s of silence a producer that said nothing is closed unclean."""
    assert producer_state(final=final, heard=_NOW - timedelta(seconds=silent_s), now=_NOW) is state
