"""The life of alerts: firing, acknowledged, resolved; at most one per signal, segment and window.

Pure but for the injected clock; fed by `monitor.py`, read by `feed.py` and `server.py`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum, StrEnum

from servicekit.domain.ids import derive_id
from servicekit.errors import NotFound, NotReady
from servicekit.ports.clock import Clock
from services.drift_monitor.judging import Finding, Summary
from services.drift_monitor.windows import Window

MAX_EXAMPLES = 8
_WARNING_EFFECT, _CRITICAL_EFFECT = 1.2, 2.0


class AlertState(StrEnum):
    """What state an alert is in."""

    FIRING = "firing"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class Severity(IntEnum):
    """How bad it is; the larger number is the worse."""

    INFO = 1
    WARNING = 2
    CRITICAL = 3


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the traffic: one tenant's requests of one route."""

    tenant: str
    route: str

    @property
    def label(self) -> str:
        """As it stands in alerts; the tenant is in the envelope."""
        return f"route={self.route}"


@dataclass(frozen=True, slots=True)
class WindowSummary:
    """A window as an alert keeps it."""

    start_time: datetime
    end_time: datetime
    summary: Summary


@dataclass(frozen=True, slots=True)
class Alert:
    """A signal that drifted in a segment, as it is after its latest change.

    `latest_window` is the newest window judged by the time of that change; of a resolved alert, the one that
    shows the signal to be back.
    """

    alert_id: str
    segment: Segment
    signal: str
    state: AlertState
    severity: Severity
    reference_window: WindowSummary
    current_window: WindowSummary
    latest_window: WindowSummary
    test: str
    statistic: float
    threshold: float
    effect: float
    example_request_ids: tuple[str, ...]
    cursor: int
    fire_time: datetime
    update_time: datetime
    acknowledged_by: str = ""
    acknowledge_note: str = ""

    @property
    def alert_key(self) -> str:
        """Signal and segment: at most one alert of a key is open."""
        return alert_key(self.segment, self.signal)

    @property
    def is_open(self) -> bool:
        """True while it is firing or acknowledged."""
        return self.state is not AlertState.RESOLVED


def alert_key(segment: Segment, signal: str) -> str:
    """The key of its alerts, also the record key of their events."""
    return f"{segment.tenant}/{segment.label}/{signal}"


def alert_id(segment: Segment, signal: str, window: Window) -> str:
    """Derived from signal, segment and window: the same drift has the same id after a restart."""
    return derive_id("drift-alert", segment.tenant, segment.route, signal, window.window_id)


class AlertBook:
    """Every alert that is open, and the latest `kept` that are resolved.

    Each change gets a cursor that only grows, across restarts too: it is the clock's microseconds, or the
    last cursor plus one where the clock has not moved on. `on_change` is called once per change.
    """

    def __init__(self, *, clock: Clock, on_change: Callable[[Alert], None], kept: int = 5_000) -> None:
        self._clock = clock
        self._on_change = on_change
        self._kept = kept
        self._by_id: dict[str, Alert] = {}
        self._newest_by_key: dict[str, Alert] = {}
        self._cursor = 0

    @property
    def cursor(self) -> int:
        """The latest change's cursor."""
        return self._cursor

    def restore(self, alerts: Iterable[Alert]) -> int:
        """Take over alerts of an earlier run, as they were; what is known here with a later cursor stands.

        Nothing is announced. Returns how many were new.
        """
        new = 0
        for alert in sorted(alerts, key=lambda alert: alert.cursor):
            known = self._by_id.get(alert.alert_id)
            if known is None or known.cursor < alert.cursor:
                self._keep(alert)
                new += 1
        return new

    def judge(self, segment: Segment, window: Window, reference: Window, finding: Finding) -> Alert | None:
        """Take account of one finding about one window; the changed alert, or None if nothing changed.

        A drifted window opens an alert unless one of its key is open, or the window is one that the key's
        newest alert had already taken account of. A sealed window that has not drifted resolves the open
        alert, if it lies behind the window that the alert fired on.
        """
        newest = self._newest_by_key.get(alert_key(segment, finding.signal))
        if finding.drifted:
            identity = alert_id(segment, finding.signal, window)
            if identity in self._by_id or not _is_news(newest, window):
                return None
            return self._fire(identity, segment, window, reference, finding)
        if newest is None or not newest.is_open or not window.sealed:
            return None
        if window.start_time <= newest.current_window.end_time:
            return None
        return self._change(newest, state=AlertState.RESOLVED, latest_window=_summary_of(window, finding.current))

    def acknowledge(self, identity: str, *, tenant: str, by: str, note: str) -> Alert:
        """Say that somebody looks after it; repeating the same changes nothing.

        Raises:
            NotFound: no such alert of this tenant.
            NotReady: it is resolved.
        """
        alert = self._by_id.get(identity)
        if alert is None or alert.segment.tenant != tenant:
            raise NotFound(f"no alert {identity[:64]!r}; ListAlerts has those there are", reason="ALERT_NOT_FOUND")
        if not alert.is_open:
            raise NotReady(f"alert {identity} is resolved; only open ones are acknowledged", reason="ALERT_RESOLVED")
        if alert.state is AlertState.ACKNOWLEDGED and (alert.acknowledged_by, alert.acknowledge_note) == (by, note):
            return alert
        return self._change(alert, state=AlertState.ACKNOWLEDGED, acknowledged_by=by, acknowledge_note=note)

    def of_tenant(self, tenant: str, *, after_cursor: int = 0) -> Sequence[Alert]:
        """The tenant's alerts that changed behind the cursor, the oldest change first."""
        found = [
            alert for alert in self._by_id.values() if alert.segment.tenant == tenant and alert.cursor > after_cursor
        ]
        return sorted(found, key=lambda alert: alert.cursor)

    def _fire(self, identity: str, segment: Segment, window: Window, reference: Window, finding: Finding) -> Alert:
        now = self._clock.now()
        current = _summary_of(window, finding.current)
        alert = Alert(
            alert_id=identity,
            segment=segment,
            signal=finding.signal,
            state=AlertState.FIRING,
            severity=severity_of(finding.effect),
            reference_window=_summary_of(reference, finding.reference),
            current_window=current,
            latest_window=current,
            test=finding.test.value,
            statistic=finding.p_value,
            threshold=finding.threshold,
            effect=finding.effect,
            example_request_ids=window.request_ids(finding.signal, limit=MAX_EXAMPLES),
            cursor=self._next_cursor(now),
            fire_time=now,
            update_time=now,
        )
        return self._announce(alert)

    def _change(self, alert: Alert, **changes: object) -> Alert:
        now = self._clock.now()
        changed: Alert = replace(alert, cursor=self._next_cursor(now), update_time=now, **changes)  # type: ignore[arg-type]  # replace() checks names at run time
        return self._announce(changed)

    def _announce(self, alert: Alert) -> Alert:
        self._keep(alert)
        self._on_change(alert)
        return alert

    def _keep(self, alert: Alert) -> None:
        self._cursor = max(self._cursor, alert.cursor)
        self._by_id.pop(alert.alert_id, None)
        self._by_id[alert.alert_id] = alert
        newest = self._newest_by_key.get(alert.alert_key)
        if newest is None or newest.alert_id == alert.alert_id or newest.fire_time <= alert.fire_time:
            self._newest_by_key[alert.alert_key] = alert
        if len(self._by_id) > self._kept:
            self._forget_oldest_resolved()

    def _forget_oldest_resolved(self) -> None:
        newest = {alert.alert_id for alert in self._newest_by_key.values()}
        for identity, alert in self._by_id.items():
            if not alert.is_open and identity not in newest:
                del self._by_id[identity]
                return

    def _next_cursor(self, now: datetime) -> int:
        return max(self._cursor + 1, int(now.timestamp() * 1_000_000))


def severity_of(effect: float) -> Severity:
    """From the shift in standard deviations of the reference: 2 and more is critical, 1.2 and more a warning."""
    if effect >= _CRITICAL_EFFECT:
        return Severity.CRITICAL
    return Severity.WARNING if effect >= _WARNING_EFFECT else Severity.INFO


def _is_news(newest: Alert | None, window: Window) -> bool:
    return newest is None or (not newest.is_open and window.end_time > newest.latest_window.end_time)


def _summary_of(window: Window, summary: Summary) -> WindowSummary:
    return WindowSummary(window.start_time, window.end_time, summary)
