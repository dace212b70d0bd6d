"""Works out from reports and stored sequences what is missing. Pure; fed by `completeness.py`.

A producer's report says up to which sequence everything is safe: in Kafka, but for the sequences it lists as
abandoned and for those in its spool. What is stored says which sequences arrived. What is lacking is *missing* only
where a report proves that the record was in Kafka and the sink has since stored all that Kafka held at that time;
else it is *pending*. Beyond the report nothing is claimed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from servicekit.events.codec import MAX_SEQUENCE
from services.analytics.ranges import Range, common, length, merged, of_numbers, without

SILENCE = timedelta(seconds=60)
# A send is acknowledged, spooled or abandoned within a publisher's timeout: what was sent in a window lies below the
# mark of a report that is at least this much later than the window's end.
SETTLE = timedelta(seconds=10)
# Reports carry the producer's time and progress the sink's: how far the two clocks may be apart.
MAX_SKEW = timedelta(seconds=2)


class ProducerState(StrEnum):
    """How a producer stands towards a window."""

    OPEN = "open"
    CLOSED = "closed"
    CLOSED_UNCLEAN = "closed_unclean"


@dataclass(frozen=True, slots=True)
class Mark:
    """What one report says of one partition."""

    time: datetime
    accepted: int
    abandoned: Sequence[int] = ()
    spooled: Sequence[Range] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """A partition's share of a window: the sequences after `after`, up to what `closing` accepted.

    `newest` is the producer's newest word on the same sequences, `proven` the newest up to whose time all is stored:
    what it shows to be missing stays missing while later reports wait for the sink. No `closing` stands for a producer
    that never reported there. `bounded`: a report behind the window closes it, and what is stored beyond belongs to
    another.
    """

    after: int = 0
    closing: Mark | None = None
    newest: Mark | None = None
    proven: Mark | None = None
    bounded: bool = False

    @property
    def accepted(self) -> int:
        """The last sequence that the account covers."""
        return self.closing.accepted if self.closing else 0


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored of a span, and behind it where it is not bounded.

    `beyond` counts what lies behind the mark, `duplicates` copies beyond the first; `doubled` has the sequences of
    which there are some.
    """

    sequences: Sequence[Range] = ()
    beyond: int = 0
    duplicates: int = 0
    doubled: Sequence[Range] = ()

    @classmethod
    def of(cls, sequences: Iterable[Range], *, span: Span, copies: Mapping[int, int]) -> "Stored":
        """Cut what is stored of a partition to the span; `copies` says of which sequences there are how many."""
        outside = [(0, span.after)]
        if span.bounded:
            outside.append((span.accepted + 1, MAX_SEQUENCE))
        within = without(sequences, outside)
        doubled = common(of_numbers(copies), within)
        return cls(
            sequences=within,
            beyond=length(without(within, [(0, span.accepted)])),
            duplicates=sum(count - 1 for number, count in copies.items() if common([(number, number)], doubled)),
            doubled=doubled,
        )

    @property
    def count(self) -> int:
        """How many different sequences."""
        return length(self.sequences)


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Why accepted sequences are not stored; the three do not overlap."""

    missing: Sequence[Range] = ()
    pending: Sequence[Range] = ()
    dead_lettered: Sequence[Range] = ()


@dataclass(frozen=True, slots=True)
class Account:
    """One producer's account for one partition of one topic."""

    topic: str
    partition: int
    source: str
    producer: str
    state: ProducerState
    span: Span
    stored: Stored
    shortfall: Shortfall = field(default_factory=Shortfall)
    report_time: datetime | None = None

    @property
    def missing(self) -> int:
        """Lost on the way."""
        return length(self.shortfall.missing)

    @property
    def pending(self) -> int:
        """On their way: in a spool, or not read from the topic yet."""
        return length(self.shortfall.pending)

    @property
    def dead_lettered(self) -> int:
        """Put aside by the sink."""
        return length(self.shortfall.dead_lettered)

    @property
    def unknown_tail(self) -> bool:
        """It went silent: what it sent beyond its last report cannot be known."""
        return self.state is ProducerState.CLOSED_UNCLEAN

    @property
    def whole(self) -> bool:
        """All that was accepted is stored, and nothing more can come or be unknown."""
        short = self.shortfall
        return self.state is ProducerState.CLOSED and not (short.missing or short.pending or short.dead_lettered)


def producer_state(*, closed: bool, heard: datetime, now: datetime) -> ProducerState:
    """Closed by a report behind the window or by its own word, closed unclean after 60 s of silence, else open."""
    if closed:
        return ProducerState.CLOSED
    return ProducerState.CLOSED_UNCLEAN if now - heard > SILENCE else ProducerState.OPEN


def find_shortfall(span: Span, stored: Stored, *, dead_letters: Sequence[int], caught_up: datetime | None) -> Shortfall:
    """What was accepted in the span and is not stored.

    `caught_up`: everything that the partition held at this time is stored; None: nothing is known of that.
    """
    if span.closing is None:
        return Shortfall()
    newest = span.newest or span.closing
    covered = [(span.after + 1, span.accepted)] if span.accepted > span.after else []
    promised = without(covered, [*stored.sequences, *of_numbers(newest.abandoned)])
    put_aside = common(promised, of_numbers(dead_letters))
    open_holes = without(promised, put_aside)
    missing = merged(
        proven
        for mark in (span.closing, newest, span.proven)
        if mark is not None and caught_up is not None and mark.time + MAX_SKEW <= caught_up
        for proven in without(
            open_holes, [(mark.accepted + 1, MAX_SEQUENCE), *mark.spooled, *of_numbers(mark.abandoned)]
        )
    )
    return Shortfall(missing=missing, pending=without(open_holes, missing), dead_lettered=put_aside)
