"""Parses what callers ask for, and says what is wrong with it. Called by `server.py`."""

from binnacle.drift_monitor.v1 import drift_monitor_service_pb2 as rpc
from servicekit.errors import InvalidRequest
from servicekit.ports.clock import Clock
from services.drift_monitor.alerts import AlertState, Severity
from services.drift_monitor.convert import SEVERITIES, STATES
from services.drift_monitor.feed import Interest
from services.drift_monitor.signals import SIGNALS

MAX_NOTE_CHARS = 1_024
DEFAULT_HEARTBEAT_S = 5.0
LEAST_HEARTBEAT_S, MOST_HEARTBEAT_S = 1.0, 60.0
_CLOCK_SKEW_US = 60_000_000


def interest_from(request: rpc.SubscribeAlertsRequest, *, tenant: str) -> Interest:
    """What the subscriber wants to hear of.

    Raises:
        InvalidRequest: an unknown severity or signal.
    """
    for place, name in enumerate(request.signals):
        if name not in SIGNALS:
            raise InvalidRequest(
                f"signals[{place}] must be one of {', '.join(SIGNALS)}, got {name[:64]!r}",
                field=f"signals[{place}]",
            )
    return Interest(tenant, _severity_of(request.min_severity), frozenset(request.signals))


def cursor_from(request: rpc.SubscribeAlertsRequest, *, clock: Clock) -> int:
    """The cursor to resume behind.

    Raises:
        InvalidRequest: negative, or from the future (cursors are microseconds at most).
    """
    latest = int(clock.now().timestamp() * 1_000_000) + _CLOCK_SKEW_US
    if not 0 <= request.after_cursor <= latest:
        raise InvalidRequest(
            f"after_cursor must be a cursor that this stream has sent, or 0, got {request.after_cursor}",
            field="after_cursor",
        )
    return request.after_cursor


def heartbeat_from(request: rpc.SubscribeAlertsRequest) -> float:
    """Seconds between heartbeats.

    Raises:
        InvalidRequest: outside of 1 s to 60 s.
    """
    if not request.HasField("heartbeat_interval"):
        return DEFAULT_HEARTBEAT_S
    asked = request.heartbeat_interval
    seconds = asked.seconds + asked.nanos / 1e9
    if not LEAST_HEARTBEAT_S <= seconds <= MOST_HEARTBEAT_S:
        raise InvalidRequest(
            f"heartbeat_interval must be {LEAST_HEARTBEAT_S:.0f} s to {MOST_HEARTBEAT_S:.0f} s, got {seconds} s",
            field="heartbeat_interval",
        )
    return seconds


def state_from(request: rpc.ListAlertsRequest) -> AlertState | None:
    """The state to list; None for any.

    Raises:
        InvalidRequest: a number that is no state.
    """
    if request.state == rpc.AlertState.ALERT_STATE_UNSPECIFIED:
        return None
    for state, number in STATES.items():
        if number == request.state:
            return state
    raise InvalidRequest(f"state must be one of AlertState, got {request.state}", field="state")


def check_acknowledgement(request: rpc.AcknowledgeAlertRequest) -> None:
    """Refuse an acknowledgement of nothing, or with an endless note.

    Raises:
        InvalidRequest: alert_id is missing or note too long.
    """
    if not request.alert_id:
        raise InvalidRequest("alert_id is required; ListAlerts has those there are", field="alert_id")
    if len(request.note) > MAX_NOTE_CHARS:
        raise InvalidRequest(f"note must be at most {MAX_NOTE_CHARS} characters, got {len(request.note)}", field="note")


def _severity_of(number: int) -> Severity:
    if number == rpc.Severity.SEVERITY_UNSPECIFIED:
        return Severity.INFO
    for severity, known in SEVERITIES.items():
        if known == number:
            return severity
    raise InvalidRequest(f"min_severity must be one of Severity, got {number}", field="min_severity")
