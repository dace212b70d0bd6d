"""The account equals what really happened, and never calls missing what is pending or unknown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.analytics.ledger import (
    MAX_SKEW,
    SETTLE,
    Account,
    Mark,
    ProducerState,
    Shortfall,
    Span,
    Stored,
    find_shortfall,
    producer_state,
)
from services.analytics.ranges import Range, of_numbers

_NOW = datetime(2026, 5, 1, tzinfo=UTC)


def _at(second: float) -> datetime:
    return _NOW + timedelta(seconds=second)


@dataclass(frozen=True)
class Event:
    """What became of one sequence: settled at `settled_s` as `how`; in Kafka from `in_kafka_s` on, unless never.

    `lost`: Kafka or the store lost it behind the producer's back; `ahead`: stored although the sink has not proven it.
    """

    settled_s: int
    how: str
    in_kafka_s: int | None
    lost: bool
    ahead: bool
    dead_letter: bool

    def is_stored(self, caught_up_s: int) -> bool:
        """Whether the sink has it."""
        if self.in_kafka_s is None or self.lost or self.dead_letter:
            return False
        return self.in_kafka_s <= caught_up_s or self.ahead


@st.composite
def _events(draw: st.DrawFn) -> Event:
    how = draw(st.sampled_from(["acknowledged", "acknowledged", "spooled", "abandoned"]))
    settled_s = draw(st.integers(0, 60))
    delay_s = 0 if how == "acknowledged" else draw(st.none() | st.integers(0, 60))
    flags = draw(
        st.sampled_from([(False, False, False), (True, False, False), (False, True, False), (False,) * 2 + (True,)])
    )
    return Event(settled_s, how, None if delay_s is None else settled_s + delay_s, *flags)


def _report(events: Sequence[Event], second: int) -> Mark:
    """What the producer says at that time."""
    accepted = 0
    while accepted < len(events) and events[accepted].settled_s <= second:
        accepted += 1
    waiting = [
        number
        for number, event in enumerate(events[:accepted], start=1)
        if event.in_kafka_s is None or event.in_kafka_s > second
    ]
    return Mark(
        time=_at(second),
        accepted=accepted,
        abandoned=[one for one in waiting if events[one - 1].how == "abandoned"],
        spooled=of_numbers(one for one in waiting if events[one - 1].how == "spooled"),
    )


def _numbers(ranges: Iterable[Range]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


@given(
    events=st.lists(_events(), max_size=25),
    times=st.lists(st.integers(0, 130), min_size=3, max_size=3, unique=True).map(sorted),
    caught_up_s=st.integers(0, 140),
    proven_s=st.integers(0, 140),
    copies=st.dictionaries(st.integers(1, 25), st.integers(2, 4)),
)
def test_the_account_is_what_happened(
    events: list[Event], times: list[int], caught_up_s: int, proven_s: int, copies: dict[int, int]
) -> None:
    """Random sends, acknowledgements, spools, losses, copies and lags: each sequence is accounted for as what it is."""
    opening, closing, newest = (_report(events, second) for second in times)
    proven = _report(events, min(proven_s, caught_up_s, times[2]))
    span = Span(after=opening.accepted, closing=closing, newest=newest, proven=proven, bounded=True)
    covered = set(range(span.after + 1, span.accepted + 1))
    everywhere = {number for number, event in enumerate(events, start=1) if event.is_stored(caught_up_s)}
    stored = Stored.of(of_numbers(everywhere), span=span, copies=copies)
    dead = {
        number for number, event in enumerate(events, start=1) if event.dead_letter and event.in_kafka_s is not None
    }
    short = find_shortfall(span, stored, dead_letters=sorted(dead), caught_up=_at(caught_up_s) + MAX_SKEW)

    missing, pending, put_aside = (_numbers(one) for one in (short.missing, short.pending, short.dead_lettered))
    truly_lost = {one for one in covered if events[one - 1].lost and events[one - 1].in_kafka_s is not None}
    assert missing <= truly_lost
    provable = {one for one in truly_lost if (events[one - 1].in_kafka_s or 0) <= times[2] <= caught_up_s}
    assert provable <= missing
    assert put_aside == (dead & covered) - set(newest.abandoned)
    assert missing | pending | put_aside == covered - everywhere - set(newest.abandoned)
    assert len(missing) + len(pending) + len(put_aside) == len(missing | pending | put_aside)
    assert stored.count == len(everywhere & covered)
    assert _numbers(stored.doubled) == copies.keys() & everywhere & covered
    assert stored.duplicates == sum(copies[one] - 1 for one in copies.keys() & everywhere & covered)


@given(sequences=st.sets(st.integers(1, 40)), accepted=st.integers(0, 45))
def test_beyond_is_what_is_stored_behind_the_mark(sequences: set[int], accepted: int) -> None:
    """Of a producer that is still open what it has not reported yet is counted, and no hole there is anybody's loss."""
    span = Span(closing=Mark(_NOW, accepted))
    stored = Stored.of(of_numbers(sequences), span=span, copies={})
    assert stored.beyond == len([one for one in sequences if one > accepted])
    assert stored.count == len(sequences)


def test_without_progress_nothing_is_called_missing() -> None:
    """As long as nobody knows how far the sink has come, what lacks is pending."""
    span = Span(closing=Mark(_NOW, 3))
    assert find_shortfall(span, Stored(), dead_letters=[], caught_up=None) == Shortfall(pending=((1, 3),))


def test_clocks_that_differ_by_less_than_the_stated_skew_prove_nothing() -> None:
    """Progress at the very time of a report may be before it on another machine's clock."""
    span = Span(closing=Mark(_NOW, 1))
    short = find_shortfall(span, Stored(), dead_letters=[], caught_up=_NOW + MAX_SKEW - timedelta(milliseconds=1))
    assert short == Shortfall(pending=((1, 1),))
    assert find_shortfall(span, Stored(), dead_letters=[], caught_up=_NOW + MAX_SKEW) == Shortfall(missing=((1, 1),))


def test_a_report_covers_what_was_sent_before_its_time_to_settle() -> None:
    """The time that a window waits for its closing report is at least the publishers' own timeout."""
    assert timedelta(seconds=10) <= SETTLE


@pytest.mark.parametrize(
    ("closed", "silent_s", "state"),
    [
        (False, 0, ProducerState.OPEN),
        (False, 60, ProducerState.OPEN),
        (False, 61, ProducerState.CLOSED_UNCLEAN),
        (True, 3600, ProducerState.CLOSED),
    ],
)
def test_a_producer_closes_by_a_report_or_by_silence(closed: bool, silent_s: int, state: ProducerState) -> None:
    """After 60 s of silence a producer that said nothing is closed unclean."""
    assert producer_state(closed=closed, heard=_NOW - timedelta(seconds=silent_s), now=_NOW) is state


@pytest.mark.parametrize(
    ("state", "short", "whole"),
    [
        (ProducerState.CLOSED, Shortfall(), True),
        (ProducerState.OPEN, Shortfall(), False),
        (ProducerState.CLOSED_UNCLEAN, Shortfall(), False),
        (ProducerState.CLOSED, Shortfall(missing=[(1, 1)]), False),
        (ProducerState.CLOSED, Shortfall(pending=[(1, 1)]), False),
        (ProducerState.CLOSED, Shortfall(dead_lettered=[(1, 1)]), False),
    ],
)
def test_whole_means_closed_and_nothing_short(state: ProducerState, short: Shortfall, whole: bool) -> None:
    """Duplicates aside, anything but a closed account without a shortfall leaves the window in doubt."""
    account = Account("t", 0, "gateway", "p", state, Span(), Stored(duplicates=3), short)
    assert account.whole is whole


def test_what_was_shown_to_be_missing_stays_missing_while_newer_reports_wait() -> None:
    """A report that the sink has not caught up with yet takes nothing back that an earlier one proved."""
    earlier, newest = Mark(_at(10), 5), Mark(_at(20), 9)
    stored = Stored.of([(1, 2), (4, 5)], span=Span(closing=newest), copies={})
    span = Span(closing=newest, newest=newest, proven=earlier)
    short = find_shortfall(span, stored, dead_letters=[], caught_up=_at(12))
    assert (_numbers(short.missing), _numbers(short.pending)) == ({3}, {6, 7, 8, 9})
