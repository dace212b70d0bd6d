"""The cap tells poison in a topic from a consumer that refuses what is good."""

import pytest

from servicekit.events.dead_letter_cap import DeadLetterCap, DeadLetterCapReached
from servicekit.ports.event_bus import DeadLetterLimits


def _refuse(cap: DeadLetterCap, count: int, *, start: int = 0) -> int:
    """How many were refused before the cap tripped."""
    for done in range(count):
        try:
            cap.refuse(f"error {done}", place=start + done)
        except DeadLetterCapReached:
            return done
    return count


def test_a_few_refused_among_many_are_poison() -> None:
    """One in a thousand, for ever, trips nothing."""
    cap = DeadLetterCap(DeadLetterLimits())
    for number in range(200):
        cap.accept(999)
        cap.refuse("bad", place=number)
    assert cap.trip is None


def test_a_streak_trips() -> None:
    """Fifty in a row are buried, the next one is not; what was accepted before does not matter."""
    cap = DeadLetterCap(DeadLetterLimits())
    cap.accept(1_000_000)
    assert _refuse(cap, 100) == 50
    assert cap.trip is not None
    assert (cap.trip.in_a_row, cap.trip.error) == (51, "error 50")


def test_one_in_five_trips_once_a_hundred_were_seen() -> None:
    """The ratio counts over the last thousand, and not before a hundred."""
    cap, refused = DeadLetterCap(DeadLetterLimits()), 0
    while _refuse(cap, 1, start=refused):
        refused += 1
        cap.accept(4)
    assert refused == 20
    assert cap.trip is not None
    assert (cap.trip.refused, cap.trip.seen) == (21, 101)


def test_only_the_last_records_count() -> None:
    """A bad hour that is over does not add to a later one."""
    cap = DeadLetterCap(DeadLetterLimits(window=100, min_records=10, max_ratio=0.5))
    assert _refuse(cap, 4) == 4
    cap.accept(100)
    assert _refuse(cap, 50, start=10) == 50


def test_another_attempt_at_the_same_record_counts_once() -> None:
    """While the dead letter cannot be sent the record is refused again and again."""
    cap = DeadLetterCap(DeadLetterLimits(max_in_a_row=2))
    for _ in range(10):
        cap.refuse("bad", place="here")
    assert cap.trip is None


def test_it_stays_tripped() -> None:
    """What is accepted later makes nothing good."""
    cap = DeadLetterCap(DeadLetterLimits(max_in_a_row=0))
    assert _refuse(cap, 1) == 0
    cap.accept(10_000)
    with pytest.raises(DeadLetterCapReached, match="1 of the last 1 records were refused"):
        cap.refuse("bad", place=2)
