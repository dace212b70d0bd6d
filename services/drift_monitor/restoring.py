"""Reads windows and alerts back from the analytics store, so that a restart continues where the last run ended.

Run by `bootstrap.py` as a background task before judging begins; SQL over the views of `infra/clickhouse`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from servicekit.errors import BackendTimeout, BackendUnavailable, NotReady
from servicekit.ports.analytics_store import AnalyticsStore
from servicekit.ports.clock import Clock
from services.drift_monitor.alerts import Alert, AlertState, Segment, Severity, WindowSummary
from services.drift_monitor.facts import (
    InteractionFacts,
    Outcome,
    signals_of,
    signals_of_decision,
    signals_of_score,
)
from services.drift_monitor.judging import Summary
from services.drift_monitor.monitor import DriftMonitor
from services.drift_monitor.traffic import ObservedRequest, ObservedValues
from services.drift_monitor.windows import WindowSizes

MAX_ALERTS = 5_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = structlog.get_logger()

# Each segment's first requests (its reference) and its latest ones since the given time. The first ones are looked
# for in all history, which is therefore never sorted: a segment holds no more than it keeps.
_REQUESTS = """
SELECT tenant, request_id
FROM (
    (SELECT tenant, first.2 AS request_id
     FROM (SELECT tenant, groupArraySorted({reference_size:UInt32})((complete_time, request_id)) AS firsts
           FROM interactions
           WHERE shadow_of = '' AND replay_of = ''
           GROUP BY tenant, route)
     ARRAY JOIN firsts AS first)
    UNION ALL
    (SELECT tenant, request_id FROM interactions
     WHERE shadow_of = '' AND replay_of = ''
       AND complete_time >= fromUnixTimestamp64Micro({since_us:Int64}, 'UTC')
     ORDER BY complete_time DESC, request_id DESC LIMIT {kept:UInt32} BY tenant, route)
)
"""

REQUESTS_SQL = f"""
SELECT
    tenant, route, request_id, outcome,
    toUnixTimestamp64Micro(complete_time) AS time_us,
    length(extractAll(query, '[^\\\\t\\\\n\\\\f\\\\r ]+')) AS question_words,
    length(extractAll(answer, '[^\\\\t\\\\n\\\\f\\\\r ]+')) AS answer_words,
    notEmpty(chunks) AS retrieved,
    if(notEmpty(chunks), chunks[1].score, 0) AS top_score,
    duration_us, time_to_first_token_us, cost_microusd,
    arrayExists(verdict -> NOT verdict.shadow, verdicts) AS guardrail_found
FROM interactions
WHERE (tenant, request_id) IN ({_REQUESTS})
"""  # noqa: S608  # both texts are constants; values are bound by the server

SCORES_SQL = f"""
SELECT tenant, request_id, metric, value
FROM evaluations
WHERE run_id = '' AND value IS NOT NULL
  AND (tenant, request_id) IN ({_REQUESTS})
ORDER BY score_time
"""  # noqa: S608  # as above

DECISIONS_SQL = f"""
SELECT tenant, request_id, max(action NOT IN ('ALLOW', 'UNSPECIFIED')) AS found
FROM guardrail_decisions
WHERE (tenant, request_id) IN ({_REQUESTS})
GROUP BY tenant, request_id
"""  # noqa: S608  # as above

ALERTS_SQL = """
SELECT
    tenant, alert_id, state, severity, signal, segment, test, statistic, threshold, effect, example_request_ids,
    cursor, acknowledged_by, acknowledge_note,
    toUnixTimestamp64Micro(fire_time) AS fire_us,
    toUnixTimestamp64Micro(update_time) AS update_us,
    toUnixTimestamp64Micro(reference_start_time) AS reference_start_us,
    toUnixTimestamp64Micro(reference_end_time) AS reference_end_us,
    reference_count, reference_mean, reference_deviation,
    toUnixTimestamp64Micro(current_start_time) AS current_start_us,
    toUnixTimestamp64Micro(current_end_time) AS current_end_us,
    current_count, current_mean, current_deviation,
    toUnixTimestamp64Micro(latest_start_time) AS latest_start_us,
    toUnixTimestamp64Micro(latest_end_time) AS latest_end_us,
    latest_count, latest_mean, latest_deviation
FROM drift_alerts
WHERE alert_id != ''
ORDER BY cursor DESC
LIMIT 1 BY alert_id
LIMIT {max_alerts:UInt32}
"""


@dataclass(frozen=True, slots=True)
class History:
    """What the store knows."""

    requests: Sequence[ObservedRequest]
    values: Sequence[ObservedValues]
    alerts: Sequence[Alert]


class Restorer:
    """Gives the monitor its history as soon as the store answers, and once more shortly after.

    The second reading brings what the last run had taken off the bus while the store's own consumer had not.
    """

    def __init__(
        self,
        store: AnalyticsStore,
        monitor: DriftMonitor,
        *,
        sizes: WindowSizes,
        clock: Clock,
        span: timedelta,
        on_alerts: Callable[[], None],
    ) -> None:
        self._store = store
        self._monitor = monitor
        self._sizes = sizes
        self._clock = clock
        self._span = span
        self._on_alerts = on_alerts
        self.restored = asyncio.Event()

    async def run(self, *, retry_s: float, reconcile_after_s: float) -> None:
        """Restore, trying again while the store is away, then reconcile once."""
        while True:
            done = self.restored.is_set()
            if not await self.try_restore():
                await asyncio.sleep(retry_s)
            elif done:
                return
            else:
                await asyncio.sleep(reconcile_after_s)

    async def wait(self, *, timeout_s: float) -> bool:
        """Whether the history is there, waiting for it at most so long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.restored.wait()
        except TimeoutError:
            return False
        return True

    async def try_restore(self) -> bool:
        """Read the history and give it to the monitor; False, and a warning, if the store cannot answer."""
        try:
            history = await self._read()
        except (BackendUnavailable, BackendTimeout, NotReady) as error:
            log.warning("drift.history_unreadable", error=error.message)
            return False
        news = self._monitor.restore(history.requests, history.values, history.alerts)
        if news:
            self._on_alerts()
        self.restored.set()
        log.info("drift.restored", requests=len(history.requests), alerts=len(history.alerts), new_alerts=news)
        return True

    async def _read(self) -> History:
        since = self._clock.now() - self._span
        since_us = _micros(_EPOCH + self._sizes.span * self._sizes.span_of(since))
        parameters = {
            "since_us": since_us,
            "reference_size": self._sizes.reference_size,
            "kept": self._sizes.kept + self._sizes.reference_size,
        }
        alerts = await self._store.query(ALERTS_SQL, {"max_alerts": MAX_ALERTS})
        requests = await self._store.query(REQUESTS_SQL, parameters)
        scores = await self._store.query(SCORES_SQL, parameters)
        decisions = await self._store.query(DECISIONS_SQL, parameters)
        return History(
            requests=tuple(_request_of(row) for row in requests),
            values=(*(_score_of(row) for row in scores), *(_decision_of(row) for row in decisions)),
            alerts=tuple(_alert_of(row) for row in alerts),
        )


def _request_of(row: Mapping[str, Any]) -> ObservedRequest:
    facts = InteractionFacts(
        outcome=Outcome.named(row["outcome"]),
        question_words=int(row["question_words"]),
        answer_words=int(row["answer_words"]),
        top_score=float(row["top_score"]) if row["retrieved"] else None,
        duration_us=int(row["duration_us"]),
        time_to_first_token_us=int(row["time_to_first_token_us"]),
        cost_microusd=int(row["cost_microusd"]),
        guardrail_found=bool(row["guardrail_found"]),
    )
    segment = Segment(row["tenant"], row["route"])
    return ObservedRequest(row["request_id"], segment, _time(row["time_us"]), signals_of(facts))


def _score_of(row: Mapping[str, Any]) -> ObservedValues:
    values = signals_of_score(row["metric"], float(row["value"]))
    return ObservedValues(row["request_id"], row["tenant"], values)


def _decision_of(row: Mapping[str, Any]) -> ObservedValues:
    return ObservedValues(row["request_id"], row["tenant"], signals_of_decision(found=bool(row["found"])))


def _alert_of(row: Mapping[str, Any]) -> Alert:
    return Alert(
        alert_id=row["alert_id"],
        segment=Segment(row["tenant"], row["segment"].removeprefix("route=")),
        signal=row["signal"],
        state=AlertState[row["state"]],
        severity=Severity[row["severity"]],
        reference_window=_window_of(row, "reference"),
        current_window=_window_of(row, "current"),
        latest_window=_window_of(row, "latest"),
        test=row["test"],
        statistic=float(row["statistic"]),
        threshold=float(row["threshold"]),
        effect=float(row["effect"]),
        example_request_ids=tuple(row["example_request_ids"]),
        cursor=int(row["cursor"]),
        fire_time=_time(row["fire_us"]),
        update_time=_time(row["update_us"]),
        acknowledged_by=row["acknowledged_by"],
        acknowledge_note=row["acknowledge_note"],
    )


def _window_of(row: Mapping[str, Any], name: str) -> WindowSummary:
    summary = Summary(
        count=int(row[f"{name}_count"]),
        mean=float(row[f"{name}_mean"]),
        deviation=float(row[f"{name}_deviation"]),
    )
    return WindowSummary(_time(row[f"{name}_start_us"]), _time(row[f"{name}_end_us"]), summary)


def _time(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=int(micros))


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)
