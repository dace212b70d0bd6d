"""Says when so much becomes dead letters that the fault is the consumer's: a bad deploy must not drain a topic.

Pure; one for each topic and group, asked before a dead letter is sent: by `lanes.py` and by the sink of analytics.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

from servicekit.ports.event_bus import DeadLetterLimits


@dataclass(frozen=True, slots=True)
class Trip:
    """What the cap saw when it tripped; `error` is the last rejection's."""

    refused: int
    seen: int
    in_a_row: int
    error: str

    def __str__(self) -> str:
        return (
            f"{self.refused} of the last {self.seen} records were refused, {self.in_a_row} of them in a row; "
            f"the last one: {self.error}"
        )


class DeadLetterCapReached(Exception):  # noqa: N818  # a state of the consumer, which stops and says so
    """Too much of a topic was refused: nothing more may be buried, committed or handled."""

    def __init__(self, trip: Trip) -> None:
        super().__init__(str(trip))
        self.trip = trip


class DeadLetterCap:
    """Counts records in the order in which they were judged. Once tripped it stays so."""

    def __init__(self, limits: DeadLetterLimits) -> None:
        self._limits = limits
        self._seen = 0
        self._in_a_row = 0
        self._refused: deque[tuple[int, Hashable]] = deque()
        self._places: set[Hashable] = set()
        self.trip: Trip | None = None

    def accept(self, count: int = 1) -> None:
        """`count` records were handled or stored."""
        if count:
            self._seen += count
            self._in_a_row = 0

    def refuse(self, error: str, *, place: Hashable) -> None:
        """The record at `place` is to become a dead letter; another attempt at the same one counts no more.

        Raises:
            DeadLetterCapReached: it is one too many; leave it where it is.
        """
        if self.trip is None and place not in self._places:
            self._count_refused(place)
            if self._is_over():
                seen = min(self._seen, self._limits.window)
                self.trip = Trip(len(self._refused), seen, self._in_a_row, error)
        if self.trip is not None:
            raise DeadLetterCapReached(self.trip)

    def _count_refused(self, place: Hashable) -> None:
        self._seen += 1
        self._in_a_row += 1
        self._refused.append((self._seen, place))
        self._places.add(place)
        while self._refused[0][0] <= self._seen - self._limits.window:
            self._places.discard(self._refused.popleft()[1])

    def _is_over(self) -> bool:
        limits = self._limits
        if self._in_a_row > limits.max_in_a_row:
            return True
        seen = min(self._seen, limits.window)
        return seen >= limits.min_records and len(self._refused) > limits.max_ratio * seen
