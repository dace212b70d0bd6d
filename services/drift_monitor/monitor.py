"""The drift monitor: takes in what happened, judges windows that changed, and keeps the book of alerts.

Called by `events.py`, `server.py` and the background tasks of `bootstrap.py`; owns traffic and alerts.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from servicekit.errors import BackendTimeout, BackendUnavailable, NotFound, NotReady
from services.drift_monitor.alerts import Alert, AlertBook, Segment
from services.drift_monitor.judging import (
    LABORATORY_FAILED,
    Finding,
    Laboratory,
    Strictness,
    comparisons_of,
    judge,
)
from services.drift_monitor.metrics import JUDGE_SECONDS, JUDGED, SEGMENTS
from services.drift_monitor.traffic import ObservedRequest, ObservedValues, Traffic
from services.drift_monitor.windows import Window, WindowSizes

_MAX_JUDGED_WINDOWS = 20_000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Report:
    """The drift report of one segment: its current window against the reference."""

    segment: Segment
    html: bytes
    reference: Window
    current: Window
    findings: tuple[Finding, ...]


class DriftMonitor:
    """One per process and event loop; every method but `judge_changed` and `report` is immediate."""

    def __init__(self, *, sizes: WindowSizes, strictness: Strictness, laboratory: Laboratory, book: AlertBook) -> None:
        self._sizes = sizes
        self._strictness = strictness
        self._laboratory = laboratory
        self._book = book
        self._traffic = Traffic(sizes)
        self._judged: OrderedDict[tuple[Segment, str], tuple[int, int, bool]] = OrderedDict()
        self._something_new = asyncio.Event()

    @property
    def book(self) -> AlertBook:
        """The alerts."""
        return self._book

    def observe_request(self, request: ObservedRequest) -> None:
        """Take in a completed interaction."""
        self._traffic.observe_request(request)
        self._something_new.set()

    def observe_values(self, seen: ObservedValues) -> None:
        """Take in further signals of a request."""
        self._traffic.observe_values(seen)
        self._something_new.set()

    def restore(
        self, requests: Iterable[ObservedRequest], values: Iterable[ObservedValues], alerts: Iterable[Alert]
    ) -> int:
        """Add what the analytics store knows, below what this process has seen, and take over its alerts.

        The windows come out as if everything had been seen in order; windows are judged again, and the
        alerts they already raised are not raised twice, since they have the same ids. Returns how many alerts
        were news.
        """
        news = self._book.restore(alerts)
        traffic = Traffic(self._sizes)
        for request in sorted((*requests, *self._traffic.requests()), key=lambda seen: seen.time):
            traffic.observe_request(request)
        for seen in (*values, *self._traffic.waiting()):
            traffic.observe_values(seen)
        self._traffic = traffic
        self._something_new.set()
        return news

    async def judge_forever(self, *, interval_s: float) -> None:
        """Judge on each arrival, at most once per `interval_s`; ends only by cancellation."""
        while True:
            await self._something_new.wait()
            self._something_new.clear()
            await self.judge_changed()
            await asyncio.sleep(interval_s)

    async def judge_changed(self) -> int:
        """Judge every window that changed since it was last judged; returns how many windows were.

        A segment that could not be judged because the laboratory is away is kept for the next time; one that it
        cannot compute waits for further requests.
        """
        judged = 0
        SEGMENTS.set(len(self._traffic.segments()))
        for segment in self._traffic.take_changed():
            try:
                judged += await self._judge_segment(segment)
            except (BackendUnavailable, BackendTimeout) as error:
                log.warning("drift.not_judged", segment=segment.label, error=error.message)
                if error.reason != LABORATORY_FAILED:
                    self._traffic.mark_changed(segment)
                    self._something_new.set()
        return judged

    async def report(self, tenant: str, *, segment_label: str) -> Report:
        """The report on the newest window that can be tested; an empty label takes the largest segment.

        Raises:
            NotFound: no such segment of this tenant.
            NotReady: its windows hold too few requests as yet.
        """
        segment = self._find_segment(tenant, segment_label)
        windows = self._traffic.windows(segment)
        reference = windows.reference() if windows else None
        testable = [window for window in windows.currents() if self._is_testable(window)] if windows else []
        if reference is None or not testable:
            needed = self._sizes.reference_size + self._sizes.min_size
            raise NotReady(
                f"segment {segment.label!r} has {len(windows or ())} requests; a report needs {needed}, "
                f"of which {self._sizes.min_size} behind the reference",
                reason="WINDOWS_NOT_FULL",
            )
        current = testable[-1]
        comparisons = comparisons_of(reference, current, min_size=self._sizes.min_size)
        findings = await judge(comparisons, self._laboratory, strictness=self._strictness)
        thresholds = {finding.signal: finding.threshold for finding in findings}
        html = await self._laboratory.render_report(comparisons, thresholds=thresholds)
        return Report(segment, html, reference, current, findings)

    async def _judge_segment(self, segment: Segment) -> int:
        windows = self._traffic.windows(segment)
        reference = windows.reference() if windows else None
        if windows is None or reference is None:
            return 0
        judged = 0
        for window in windows.currents():
            if self._is_testable(window) and self._needs_judging(segment, window, reference):
                await self._judge_window(segment, window, reference)
                judged += 1
        return judged

    async def _judge_window(self, segment: Segment, window: Window, reference: Window) -> None:
        state = _state_of(window, reference)
        comparisons = comparisons_of(reference, window, min_size=self._sizes.min_size)
        with JUDGE_SECONDS.time():
            findings = await judge(comparisons, self._laboratory, strictness=self._strictness)
        JUDGED.inc()
        for finding in findings:
            self._book.judge(segment, window, reference, finding)
        self._judged[segment, window.window_id] = state
        while len(self._judged) > _MAX_JUDGED_WINDOWS:
            self._judged.popitem(last=False)
        drifted = [finding.signal for finding in findings if finding.drifted]
        log.info(
            "drift.judged",
            segment=segment.label,
            requests=len(window.observations),
            signals=len(findings),
            drifted=drifted,
        )

    def _is_testable(self, window: Window) -> bool:
        return len(window.observations) >= self._sizes.min_size

    def _needs_judging(self, segment: Segment, window: Window, reference: Window) -> bool:
        return self._judged.get((segment, window.window_id)) != _state_of(window, reference)

    def _find_segment(self, tenant: str, label: str) -> Segment:
        mine = [segment for segment in self._traffic.segments() if segment.tenant == tenant]
        if label:
            mine = [segment for segment in mine if segment.label == label]
        if not mine:
            raise NotFound(
                f"segment {label[:128]!r} has no traffic; segments read route=<route>", reason="SEGMENT_NOT_FOUND"
            )
        return max(mine, key=lambda segment: len(self._traffic.windows(segment) or ()))


def _state_of(window: Window, reference: Window) -> tuple[int, int, bool]:
    """What a judgement depends on: it is repeated only when this has changed."""
    return (window.known_values, reference.known_values, window.sealed)
