"""Joins what is known of each request (the interaction, its scores, its verdicts) and sorts it into segments.

Pure; fed by `events.py` and `restoring.py`, read by `monitor.py`. Not thread-safe.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.drift_monitor.alerts import Segment
from services.drift_monitor.signals import merge_values
from services.drift_monitor.windows import SegmentWindows, WindowSizes


@dataclass(frozen=True, slots=True)
class ObservedRequest:
    """A completed interaction reduced to its signals."""

    request_id: str
    segment: Segment
    time: datetime
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ObservedValues:
    """Further signals of a request, known by its id alone."""

    request_id: str
    tenant: str
    values: Mapping[str, float]


class Traffic:
    """The windows of every segment.

    Values that arrive before their interaction wait for it, at most `max_waiting` requests of them; values are
    joined to the latest `max_joined` requests. At most `max_segments` segments are watched, further ones are
    counted in `refused_segments` and left out.
    """

    def __init__(
        self,
        sizes: WindowSizes,
        *,
        max_segments: int = 1_000,
        max_waiting: int = 20_000,
        max_joined: int = 200_000,
    ) -> None:
        self._sizes = sizes
        self._max_joined = max_joined
        self._max_segments = max_segments
        self._max_waiting = max_waiting
        self._segments: dict[Segment, SegmentWindows] = {}
        self._segment_of: OrderedDict[tuple[str, str], tuple[Segment, datetime]] = OrderedDict()
        self._waiting: OrderedDict[tuple[str, str], dict[str, float]] = OrderedDict()
        self._changed: dict[Segment, None] = {}
        self.refused_segments = 0

    def observe_request(self, request: ObservedRequest) -> None:
        """Add an interaction; a repeat changes nothing."""
        windows = self._segments.get(request.segment)
        if windows is None:
            if len(self._segments) >= self._max_segments:
                self.refused_segments += 1
                return
            windows = self._segments[request.segment] = SegmentWindows(self._sizes)
        key = (request.segment.tenant, request.request_id)
        values = dict(request.values)
        merge_values(values, self._waiting.pop(key, {}))
        self._segment_of[key] = (request.segment, request.time)
        _bound(self._segment_of, self._max_joined)
        if windows.observe(request.request_id, time=request.time, values=values):
            self._changed[request.segment] = None
            windows.forget_oldest()

    def observe_values(self, seen: ObservedValues) -> None:
        """Add signals of a request; they wait if its interaction has not been seen."""
        key = (seen.tenant, seen.request_id)
        known = self._segment_of.get(key)
        if known is None:
            merge_values(self._waiting.setdefault(key, {}), seen.values)
            _bound(self._waiting, self._max_waiting)
            return
        segment, time = known
        if self._segments[segment].observe(seen.request_id, time=time, values=seen.values):
            self._changed[segment] = None

    def take_changed(self) -> tuple[Segment, ...]:
        """The segments that changed since the last call, the longest waiting first."""
        changed = tuple(self._changed)
        self._changed.clear()
        return changed

    def mark_changed(self, segment: Segment) -> None:
        """Give a segment back that could not be judged."""
        self._changed[segment] = None

    def windows(self, segment: Segment) -> SegmentWindows | None:
        """The segment's windows, or None if it has not been seen."""
        return self._segments.get(segment)

    def segments(self) -> tuple[Segment, ...]:
        """Every segment, in order of first appearance."""
        return tuple(self._segments)

    def requests(self) -> Iterator[ObservedRequest]:
        """Everything remembered, so that it can be added to other traffic."""
        for segment, windows in self._segments.items():
            for seen in windows.observations():
                yield ObservedRequest(seen.request_id, segment, seen.time, dict(seen.values))

    def waiting(self) -> Iterator[ObservedValues]:
        """Values whose interaction has not been seen."""
        for (tenant, request_id), values in self._waiting.items():
            yield ObservedValues(request_id, tenant, dict(values))


def _bound(kept: OrderedDict[tuple[str, str], Any], most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)
