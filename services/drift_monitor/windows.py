"""Reference and current windows over the requests of one segment, by event time and by count.

Pure: the windows are a function of the set of requests, whatever their order of arrival. Called by `traffic.py`.
"""

from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from services.drift_monitor.signals import merge_values

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class WindowSizes:
    """How windows are cut.

    The reference is the first `reference_size` requests of a segment. Behind it, time is parted into spans of
    `span` counted from the epoch, and each span into windows of `current_size` requests, so that the windows of
    a span depend on nothing outside it and a restart finds the same ones. A window is tested from `min_size`
    values on. `kept` bounds how many requests behind the reference are remembered.
    """

    reference_size: int = 30
    current_size: int = 20
    min_size: int = 10
    span: timedelta = timedelta(hours=1)
    kept: int = 2_000

    def __post_init__(self) -> None:
        if not 1 < self.min_size <= self.current_size:
            raise ValueError(f"min_size must be 2..current_size={self.current_size}, got {self.min_size}")
        if self.reference_size < self.min_size:
            raise ValueError(f"reference_size must be min_size={self.min_size} or more, got {self.reference_size}")
        if self.kept < 2 * self.current_size:
            raise ValueError(f"kept must be twice current_size={self.current_size} or more, got {self.kept}")

    def span_of(self, time: datetime) -> int:
        """The number of the span that holds `time` (aware)."""
        return (time - _EPOCH) // self.span


@dataclass(slots=True)
class Observation:
    """One request of a segment: its time and the signals known of it so far, which later events fill in."""

    time: datetime
    request_id: str
    values: dict[str, float] = field(default_factory=dict)

    @property
    def order(self) -> tuple[datetime, str]:
        """Where it stands: by time, ties by request id."""
        return (self.time, self.request_id)


@dataclass(frozen=True, slots=True)
class Window:
    """Consecutive requests of one segment, never empty; `sealed` once it is full or its span is over."""

    observations: tuple[Observation, ...]
    sealed: bool

    @property
    def window_id(self) -> str:
        """Names the window by its first request, so that it has the same name after a restart."""
        return self.observations[0].request_id

    @property
    def start_time(self) -> datetime:
        """The first request's time."""
        return self.observations[0].time

    @property
    def end_time(self) -> datetime:
        """The last request's time."""
        return self.observations[-1].time

    @property
    def known_values(self) -> int:
        """How many values its requests have together: grows whenever there is something new to test."""
        return sum(len(seen.values) for seen in self.observations)

    def values(self, signal: str) -> tuple[float, ...]:
        """The signal's values in order of time; requests without one are left out."""
        return tuple(seen.values[signal] for seen in self.observations if signal in seen.values)

    def request_ids(self, signal: str, *, limit: int) -> tuple[str, ...]:
        """The latest requests that have the signal, at most `limit`, newest first."""
        having = [seen.request_id for seen in self.observations if signal in seen.values]
        return tuple(reversed(having[-limit:]))


class SegmentWindows:
    """The windows of one segment (tenant and route)."""

    def __init__(self, sizes: WindowSizes) -> None:
        self._sizes = sizes
        self._ordered: list[Observation] = []
        self._by_id: dict[str, Observation] = {}
        self._floor: tuple[datetime, str] | None = None

    def __len__(self) -> int:
        return len(self._ordered)

    def observe(self, request_id: str, *, time: datetime, values: Mapping[str, float]) -> bool:
        """Add a request, or further signals of one already seen; False if nothing changed.

        A repeat changes nothing and the request's first time stands. A request from among those already
        forgotten is refused, so that no window's cut moves.
        """
        seen = self._by_id.get(request_id)
        if seen is None:
            seen = Observation(time, request_id)
            if self._is_forgotten(seen):
                return False
            self._by_id[request_id] = seen
            insort(self._ordered, seen, key=lambda other: other.order)
            merge_values(seen.values, values)
            return True
        return merge_values(seen.values, values)

    def reference(self) -> Window | None:
        """The first `reference_size` requests, or None while there are fewer."""
        size = self._sizes.reference_size
        if len(self._ordered) < size:
            return None
        return Window(tuple(self._ordered[:size]), sealed=True)

    def currents(self) -> Sequence[Window]:
        """The windows behind the reference, oldest first; at most the last is unsealed."""
        return tuple(self._cut(self._ordered[self._sizes.reference_size :]))

    def observations(self) -> Iterable[Observation]:
        """Every request remembered, in order of time."""
        return tuple(self._ordered)

    def forget_oldest(self) -> int:
        """Drop whole sealed windows behind the reference, oldest first, until at most `kept` requests remain.

        Returns how many requests were dropped; the cuts of the other windows do not move.
        """
        behind = len(self._ordered) - self._sizes.reference_size
        if behind <= self._sizes.kept:
            return 0
        dropped: list[Observation] = []
        for window in self.currents():
            if behind - len(dropped) <= self._sizes.kept or not window.sealed:
                break
            dropped.extend(window.observations)
        if dropped:
            start = self._sizes.reference_size
            del self._ordered[start : start + len(dropped)]
            self._floor = dropped[-1].order
            for old in dropped:
                del self._by_id[old.request_id]
        return len(dropped)

    def _is_forgotten(self, seen: Observation) -> bool:
        return self._floor is not None and seen.order <= self._floor

    def _cut(self, behind: Sequence[Observation]) -> Iterator[Window]:
        part: list[Observation] = []
        for seen in behind:
            ends = bool(part) and self._sizes.span_of(seen.time) != self._sizes.span_of(part[0].time)
            if ends or len(part) == self._sizes.current_size:
                yield Window(tuple(part), sealed=True)
                part = []
            part.append(seen)
        if part:
            yield Window(tuple(part), sealed=len(part) == self._sizes.current_size)
