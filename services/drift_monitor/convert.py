"""Protobuf ↔ the drift monitor's domain types. Nothing else here touches generated messages."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from binnacle.drift_monitor.v1 import drift_monitor_service_pb2 as rpc
from binnacle.events.v1.drift_alerted_pb2 import DriftAlerted
from binnacle.events.v1.evaluation_scored_pb2 import EvaluationScored
from binnacle.events.v1.guardrail_decided_pb2 import GuardrailDecided
from binnacle.events.v1.interaction_completed_pb2 import InteractionCompleted, InteractionOutcome
from binnacle.type.v1.verdict_pb2 import Action
from servicekit.events.codec import read_time
from services.drift_monitor.alerts import Alert, AlertState, Segment, Severity, WindowSummary
from services.drift_monitor.facts import (
    InteractionFacts,
    Outcome,
    count_words,
    signals_of,
    signals_of_decision,
    signals_of_score,
)
from services.drift_monitor.feed import AlertChanged, FeedEvent, Heartbeat, Synchronized
from services.drift_monitor.judging import Finding, Summary
from services.drift_monitor.monitor import Report
from services.drift_monitor.traffic import ObservedRequest, ObservedValues
from services.drift_monitor.windows import Window

_OUTCOMES = {
    InteractionOutcome.INTERACTION_OUTCOME_ANSWERED: Outcome.ANSWERED,
    InteractionOutcome.INTERACTION_OUTCOME_BLOCKED: Outcome.BLOCKED,
    InteractionOutcome.INTERACTION_OUTCOME_REFUSED: Outcome.REFUSED,
}
STATES = {
    AlertState.FIRING: rpc.AlertState.ALERT_STATE_FIRING,
    AlertState.ACKNOWLEDGED: rpc.AlertState.ALERT_STATE_ACKNOWLEDGED,
    AlertState.RESOLVED: rpc.AlertState.ALERT_STATE_RESOLVED,
}
SEVERITIES = {
    Severity.INFO: rpc.Severity.SEVERITY_INFO,
    Severity.WARNING: rpc.Severity.SEVERITY_WARNING,
    Severity.CRITICAL: rpc.Severity.SEVERITY_CRITICAL,
}


def request_from(message: InteractionCompleted, *, tenant: str) -> ObservedRequest | None:
    """The interaction as signals; None for a shadow or a replay, which is no traffic of users.

    Raises:
        RejectedEvent: no calendar has its time of completion.
    """
    if message.shadow_of or message.replay_of:
        return None
    facts = InteractionFacts(
        outcome=_OUTCOMES.get(message.outcome, Outcome.OTHER),
        question_words=count_words(message.query),
        answer_words=count_words(message.answer),
        top_score=message.chunks[0].score if message.chunks else None,
        duration_us=message.duration_us,
        time_to_first_token_us=message.time_to_first_token_us,
        cost_microusd=message.cost_microusd,
        guardrail_found=any(not verdict.shadow for verdict in message.verdicts),
    )
    return ObservedRequest(
        request_id=message.request_id,
        segment=Segment(tenant, message.route),
        time=read_time(message.complete_time, field="complete_time"),
        values=signals_of(facts),
    )


def score_from(message: EvaluationScored, *, tenant: str) -> ObservedValues | None:
    """The score as a signal; None if it was not measured, or belongs to an offline run."""
    if message.run_id or not message.HasField("value"):
        return None
    return ObservedValues(message.request_id, tenant, signals_of_score(message.metric, message.value))


def decision_from(message: GuardrailDecided, *, tenant: str) -> ObservedValues | None:
    """The decision as a signal; None for a check outside of any interaction."""
    if not message.request_id:
        return None
    values = signals_of_decision(found=message.action > Action.ACTION_ALLOW)
    return ObservedValues(message.request_id, tenant, values)


def alerted_to(alert: Alert) -> DriftAlerted:
    """The event of an alert's change."""
    message = DriftAlerted(alert=alert_to(alert), tenant_id=alert.segment.tenant)
    message.change_time.FromDatetime(alert.update_time)
    return message


def alert_to(alert: Alert) -> rpc.Alert:
    """The alert as callers and events have it."""
    return rpc.Alert(
        alert_id=alert.alert_id,
        alert_key=alert.alert_key,
        state=STATES[alert.state],
        severity=SEVERITIES[alert.severity],
        signal=alert.signal,
        segment=alert.segment.label,
        reference_window=_window_to(alert.reference_window),
        current_window=_window_to(alert.current_window),
        latest_window=_window_to(alert.latest_window),
        test=alert.test,
        statistic=alert.statistic,
        threshold=alert.threshold,
        effect=alert.effect,
        example_request_ids=alert.example_request_ids,
        cursor=alert.cursor,
        fire_time=_timestamp(alert.fire_time),
        update_time=_timestamp(alert.update_time),
        acknowledged_by=alert.acknowledged_by,
        acknowledge_note=alert.acknowledge_note,
    )


def feed_event_to(event: FeedEvent, *, now: datetime) -> rpc.SubscribeAlertsResponse:
    """One event of a subscription."""
    response = rpc.SubscribeAlertsResponse(cursor=event.cursor)
    match event:
        case AlertChanged(alert=alert):
            response.alert.CopyFrom(alert_to(alert))
        case Synchronized(open_alerts=open_alerts):
            response.synchronized.firing_count = open_alerts
        case Heartbeat():
            response.heartbeat.send_time.FromDatetime(now)
    return response


def report_to(report: Report) -> rpc.GetDriftReportResponse:
    """The report with its HTML."""
    return rpc.GetDriftReportResponse(
        html=report.html,
        segment=report.segment.label,
        signals=[_signal_to(finding, report) for finding in report.findings],
    )


def _signal_to(finding: Finding, report: Report) -> rpc.SignalState:
    return rpc.SignalState(
        signal=finding.signal,
        test=finding.test.value,
        statistic=finding.p_value,
        threshold=finding.threshold,
        drifted=finding.drifted,
        reference_window=_window_to(_summary(report.reference, finding.reference)),
        current_window=_window_to(_summary(report.current, finding.current)),
    )


def _summary(window: Window, summary: Summary) -> WindowSummary:
    return WindowSummary(window.start_time, window.end_time, summary)


def _window_to(window: WindowSummary) -> rpc.Window:
    return rpc.Window(
        start_time=_timestamp(window.start_time),
        end_time=_timestamp(window.end_time),
        count=window.summary.count,
        mean=window.summary.mean,
        standard_deviation=window.summary.deviation,
    )


def _timestamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
