"""Works out from reports and stored sequences what is missing. Pure; fed by `completeness.py`.

A producer's newest report says up to which sequence everything is in Kafka, but for the sequences it lists as
abandoned. What is stored says which sequences arrived. The difference is missing; beyond the report nothing is
claimed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

SILENCE = timedelta(seconds=60)

Range = tuple[int, int]


class ProducerState(StrEnum):
    """How a producer's process stands."""

    OPEN = "open"
    CLOSED = "closed"
    CLOSED_UNCLEAN = "closed_unclean"


@dataclass(frozen=True, slots=True)
class Mark:
    """What a producer reports of one partition."""

    accepted: int
    abandoned: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored of one partition: how many different sequences, up to which, and the holes below it."""

    count: int = 0
    last: int = 0
    duplicates: int = 0
    holes: Sequence[Range] = ()


@dataclass(frozen=True, slots=True)
class Account:
    """One producer's account for one partition of one topic."""

    topic: str
    partition: int
    source: str
    producer: str
    state: ProducerState
    accepted: int
    stored: int
    duplicates: int
    missing: int
    missing_ranges: Sequence[Range]
    unreported: int
    report_time: datetime | None

    @property
    def unknown_tail(self) -> bool:
        """It went silent: what it sent beyond its last report cannot be known."""
        return self.state is ProducerState.CLOSED_UNCLEAN


def producer_state(*, final: bool, heard: datetime, now: datetime) -> ProducerState:
    """Closed by its own word, closed unclean after 60 s of silence, else open."""
    if final:
        return ProducerState.CLOSED
    return ProducerState.CLOSED_UNCLEAN if now - heard > SILENCE else ProducerState.OPEN


def missing_ranges(mark: Mark, stored: Stored) -> Sequence[Range]:
    """The sequences up to the mark that are neither stored nor abandoned, as ranges in order."""
    holes = [*stored.holes, (stored.last + 1, mark.accepted)]
    within = ((first, min(last, mark.accepted)) for first, last in holes)
    return [piece for first, last in within if first <= last for piece in _without(first, last, mark.abandoned)]


def unreported(mark: Mark, stored: Stored) -> int:
    """How many different sequences are stored beyond the mark."""
    if stored.last <= mark.accepted:
        return 0
    holes_beyond = sum(last - max(first, mark.accepted + 1) + 1 for first, last in stored.holes if last > mark.accepted)
    return stored.last - mark.accepted - holes_beyond


def length(ranges: Iterable[Range]) -> int:
    """How many numbers the ranges hold."""
    return sum(last - first + 1 for first, last in ranges)


def union_length(ranges: Iterable[Range]) -> int:
    """How many numbers lie in at least one of the ranges."""
    total, reached = 0, -1
    for first, last in sorted(ranges):
        total += max(0, last - max(first, reached + 1) + 1)
        reached = max(reached, last)
    return total


def _without(first: int, last: int, left_out: frozenset[int]) -> Iterable[Range]:
    for number in sorted(one for one in left_out if first <= one <= last):
        if first < number:
            yield first, number - 1
        first = number + 1
    if first <= last:
        yield first, last
