"""The monitor as a whole, without Evidently: what fires when, and what a restart or a lost laboratory changes."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from servicekit.adapters.memory.event_bus import MemoryEventBus
from servicekit.errors import BackendUnavailable, NotFound, NotReady
from servicekit.events.topics import DRIFT_ALERTED
from servicekit.testing.clocks import FakeClock
from services.drift_monitor.alerts import Alert, AlertState
from services.drift_monitor.judging import LABORATORY_FAILED, Comparison, Measured
from services.drift_monitor.monitor import DriftMonitor
from services.drift_monitor.publishing import AlertPublisher
from services.drift_monitor.restoring import ALERTS_SQL, DECISIONS_SQL, REQUESTS_SQL, SCORES_SQL, Restorer
from services.drift_monitor.traffic import ObservedRequest, ObservedValues
from tests.unit.drift_monitor.drift_fakes import SEGMENT, SIZES, START, MeansLaboratory, make_monitor, seen_at

STEADY = [seen_at(place, 5.0 + place % 2) for place in range(14)]
SHIFTED = [seen_at(place, 12.0) for place in range(14, 26)]


async def feed_all(monitor: DriftMonitor, requests: Sequence[ObservedRequest]) -> None:
    """Judge after each request."""
    for request in requests:
        monitor.observe_request(request)
        await monitor.judge_changed()


async def test_steady_traffic_raises_nothing() -> None:
    """Windows like the reference leave the book empty."""
    monitor, changes = make_monitor()
    await feed_all(monitor, [seen_at(place, 5.0 + place % 2) for place in range(60)])
    assert changes == []


async def test_shifted_traffic_raises_one_alert() -> None:
    """The alert names the shifted window, its latest requests, and how far the signal moved."""
    monitor, changes = make_monitor()
    await feed_all(monitor, STEADY + SHIFTED)
    (alert,) = changes
    assert (alert.signal, alert.segment, alert.state) == ("question_words", SEGMENT, AlertState.FIRING)
    assert set(alert.example_request_ids) <= {request.request_id for request in (*STEADY, *SHIFTED)}
    assert alert.effect > 1


async def test_traffic_that_comes_back_resolves_the_alert() -> None:
    """A full window like the reference ends it."""
    monitor, changes = make_monitor()
    steady_again = [seen_at(place, 5.0 + place % 2) for place in range(26, 50)]
    await feed_all(monitor, STEADY + SHIFTED + steady_again)
    assert [alert.state for alert in changes] == [AlertState.FIRING, AlertState.RESOLVED]


async def test_redelivered_requests_raise_nothing_more() -> None:
    """At-least-once delivery changes neither windows nor alerts."""
    monitor, changes = make_monitor()
    await feed_all(monitor, STEADY + SHIFTED)
    await feed_all(monitor, STEADY + SHIFTED)
    assert len(changes) == 1


async def test_an_unchanged_window_is_not_judged_again() -> None:
    """Only what is new costs a test."""
    laboratory = MeansLaboratory()
    monitor, _ = make_monitor(laboratory)
    await feed_all(monitor, STEADY)
    asked = len(laboratory.asked)
    await feed_all(monitor, STEADY)
    assert len(laboratory.asked) == asked


async def test_scores_that_arrive_late_are_judged() -> None:
    """A window is judged again when the scores of its requests come in."""
    monitor, changes = make_monitor()
    await feed_all(monitor, [seen_at(place, 5.0 + place % 2) for place in range(18)])
    for place in range(18):
        value = {"groundedness": 0.9 + place % 2 / 100 if place < 10 else -5.0}
        monitor.observe_values(ObservedValues(f"r-{place:04}", "acme", value))
    await monitor.judge_changed()
    assert [alert.signal for alert in changes] == ["groundedness"]


async def test_a_lost_laboratory_delays_and_loses_nothing() -> None:
    """What could not be judged is judged the next time."""
    laboratory = MeansLaboratory()
    monitor, changes = make_monitor(laboratory)
    for request in STEADY + SHIFTED:
        monitor.observe_request(request)
    laboratory.failures = 1
    assert await monitor.judge_changed() == 0
    assert await monitor.judge_changed() > 0
    assert len(changes) == 1


async def test_what_the_laboratory_cannot_compute_does_not_keep_it_busy() -> None:
    """The window is left until further requests come, and other segments are judged."""

    class Failing(MeansLaboratory):
        async def compare(self, comparisons: Sequence[Comparison]) -> Sequence[Measured]:
            self.asked.append(())
            raise BackendUnavailable("cannot compute this", reason=LABORATORY_FAILED)

    laboratory = Failing()
    monitor, _ = make_monitor(laboratory)
    for request in STEADY:
        monitor.observe_request(request)
    for _ in range(3):
        await monitor.judge_changed()
    assert len(laboratory.asked) == 1


async def test_a_restart_neither_loses_nor_repeats_an_alert() -> None:
    """With the history and the alerts restored, judging everything again announces nothing new."""
    first, changes = make_monitor()
    await feed_all(first, STEADY + SHIFTED[:6])
    assert len(changes) == 1
    second, later = make_monitor()
    second.restore(STEADY + SHIFTED[:6], (), changes)
    await second.judge_changed()
    await feed_all(second, SHIFTED)
    assert later == []


async def test_an_alert_lost_in_a_crash_is_raised_by_the_restart_under_the_same_id() -> None:
    """The windows say what the lost process had not published."""
    first, changes = make_monitor()
    await feed_all(first, STEADY + SHIFTED)
    second, later = make_monitor()
    second.restore(STEADY + SHIFTED, (), ())
    await second.judge_changed()
    assert [alert.alert_id for alert in later] == [alert.alert_id for alert in changes]


async def test_what_arrived_before_the_restoration_is_kept() -> None:
    """Requests off the bus and from the store join, whatever came first."""
    monitor, changes = make_monitor()
    for request in SHIFTED:
        monitor.observe_request(request)
    monitor.restore(STEADY, (), ())
    await monitor.judge_changed()
    assert len(changes) == 1


async def test_judging_goes_on_for_ever_and_at_each_arrival() -> None:
    """The loop wakes by itself when something arrives."""
    fired = asyncio.Event()
    monitor, changes = make_monitor()
    monitor.book._on_change = lambda alert: (changes.append(alert), fired.set())[0]
    task = asyncio.create_task(monitor.judge_forever(interval_s=0.001))
    for request in STEADY + SHIFTED:
        monitor.observe_request(request)
    async with asyncio.timeout(5):
        await fired.wait()
    task.cancel()
    assert changes


async def test_a_report_is_about_the_newest_window() -> None:
    """It takes the largest segment when none is named."""
    monitor, _ = make_monitor()
    await feed_all(monitor, STEADY + SHIFTED)
    report = await monitor.report("acme", segment_label="")
    assert report.segment == SEGMENT
    assert report.html == b"<html>question_words</html>"
    assert [(finding.signal, finding.drifted) for finding in report.findings] == [("question_words", True)]


async def test_a_report_of_too_little_traffic_is_refused() -> None:
    """The error says how many requests are needed."""
    monitor, _ = make_monitor()
    await feed_all(monitor, STEADY[:5])
    with pytest.raises(NotReady, match="needs 14"):
        await monitor.report("acme", segment_label="route=docs")


@pytest.mark.parametrize(("tenant", "label"), [("globex", ""), ("acme", "route=nowhere")])
async def test_a_report_of_a_foreign_or_unknown_segment_is_not_found(tenant: str, label: str) -> None:
    """Another tenant's segment cannot be told from none."""
    monitor, _ = make_monitor()
    await feed_all(monitor, STEADY)
    with pytest.raises(NotFound):
        await monitor.report(tenant, segment_label=label)


async def one_alert() -> Alert:
    """A firing alert."""
    monitor, changes = make_monitor()
    await feed_all(monitor, STEADY + SHIFTED)
    return changes[0]


async def test_changes_are_published_in_order_with_ids_of_their_own() -> None:
    """Each state is an event of the alert's key; the same state twice is the same event."""
    bus, alert = MemoryEventBus(), await one_alert()
    publisher = AlertPublisher(bus)
    publisher.put(alert)
    publisher.put(alert)
    await publisher.drain()
    first, second = bus.published
    assert (first.topic, first.key, first.tenant) == (DRIFT_ALERTED, "acme/route=docs/question_words", "acme")
    assert first.id == second.id


async def test_a_resolved_alert_is_followed_by_a_tombstone() -> None:
    """Compaction then forgets the key."""
    bus, alert = MemoryEventBus(), await one_alert()
    publisher = AlertPublisher(bus)
    resolved = Alert(**{**_fields(alert), "state": AlertState.RESOLVED})
    publisher.put(resolved)
    await publisher.drain()
    assert [event.tombstone for event in bus.published] == [False, True]
    last = bus.records(DRIFT_ALERTED)[-1]
    assert last.value is None


def _fields(alert: Alert) -> dict[str, Any]:
    return {name: getattr(alert, name) for name in alert.__dataclass_fields__}


async def test_a_bus_that_is_away_keeps_the_order() -> None:
    """What failed is tried again first."""
    bus, alert = MemoryEventBus(), await one_alert()
    bus.fail_next = 2
    publisher = AlertPublisher(bus, retry_s=0.001)
    task = asyncio.create_task(publisher.run())
    publisher.put(alert)
    await publisher.settle(timeout_s=5)
    task.cancel()
    assert len(bus.published) == 1


async def test_an_unacknowledged_change_is_said_to_be() -> None:
    """The caller of AcknowledgeAlert learns that it is not recorded yet."""
    publisher = AlertPublisher(MemoryEventBus())
    publisher.put(await one_alert())
    with pytest.raises(BackendUnavailable) as caught:
        await publisher.settle(timeout_s=0.01)
    assert caught.value.reason == "EVENT_NOT_RECORDED"


class FakeStore:
    """Rows by statement; `failures` makes that many queries fail."""

    def __init__(self, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        self.rows = rows
        self.failures = 0
        self.parameters: list[Mapping[str, Any]] = []

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Mapping[str, Any]]:
        """The rows of this statement."""
        if self.failures:
            self.failures -= 1
            raise BackendUnavailable("told to fail")
        self.parameters.append(parameters or {})
        return self.rows.get(sql, ())

    async def execute(self, sql: str) -> None:
        """Not needed."""

    async def insert_bytes(self, sql: str, body: bytes, *, settings: Mapping[str, str]) -> None:
        """Not needed."""

    async def ping(self) -> None:
        """Not needed."""


def row_of(request: ObservedRequest) -> Mapping[str, Any]:
    """An interaction as the store has it."""
    return {
        "tenant": "acme",
        "route": "docs",
        "request_id": request.request_id,
        "outcome": "FAILED",
        "time_us": int(request.time.timestamp() * 1_000_000),
        "question_words": int(request.values["question_words"]),
        "answer_words": 0,
        "retrieved": 0,
        "top_score": 0.0,
        "duration_us": 10,
        "time_to_first_token_us": 0,
        "cost_microusd": 0,
        "guardrail_found": 0,
    }


def restorer(store: FakeStore, monitor: DriftMonitor, announced: list[bool]) -> Restorer:
    """A restorer of the last day."""
    return Restorer(
        store,
        monitor,
        sizes=SIZES,
        clock=FakeClock(START + timedelta(minutes=90)),
        span=timedelta(hours=1),
        on_alerts=lambda: announced.append(True),
    )


async def test_windows_are_rebuilt_from_rows() -> None:
    """Interactions, scores and decisions of the store give the windows that the events gave."""
    rows = [row_of(request) for request in STEADY + SHIFTED]
    scores = [{"tenant": "acme", "request_id": "r-0001", "metric": "groundedness", "value": 0.5}]
    decisions = [{"tenant": "acme", "request_id": "r-0002", "found": 1}]
    store = FakeStore({REQUESTS_SQL: rows, SCORES_SQL: scores, DECISIONS_SQL: decisions})
    monitor, changes = make_monitor()
    announced: list[bool] = []
    assert await restorer(store, monitor, announced).try_restore()
    await monitor.judge_changed()
    assert [alert.signal for alert in changes] == ["question_words"]
    assert announced == []
    values = {request.request_id: request.values for request in monitor._traffic.requests()}
    assert values["r-0001"]["groundedness"] == 0.5
    assert values["r-0002"]["guardrail_found"] == 1.0


async def test_the_history_is_read_from_the_beginning_of_a_span() -> None:
    """Half past one minus an hour lies in the first hour, whose windows are read whole."""
    store = FakeStore({})
    monitor, _ = make_monitor()
    await restorer(store, monitor, []).try_restore()
    assert store.parameters[-1]["since_us"] == int(START.timestamp() * 1_000_000)


async def test_a_store_that_is_away_is_asked_until_it_answers_and_then_once_more() -> None:
    """The second reading brings what was on its way to the store at the first."""
    store = FakeStore({})
    store.failures = 2
    monitor, _ = make_monitor()
    asking = restorer(store, monitor, [])
    async with asyncio.timeout(5):
        await asking.run(retry_s=0.001, reconcile_after_s=0.001)
    assert asking.restored.is_set()
    assert len([asked for asked in store.parameters if "since_us" in asked]) == 2 * 3


async def test_an_alert_comes_back_from_its_row() -> None:
    """State, windows and cursor survive the way through the store."""
    alert = await one_alert()
    row = {
        "tenant": "acme",
        "segment": alert.segment.label,
        "state": "FIRING",
        "severity": alert.severity.name,
        "fire_us": int(alert.fire_time.timestamp() * 1_000_000),
        "update_us": int(alert.update_time.timestamp() * 1_000_000),
    }
    for name in ("alert_id", "signal", "test", "statistic", "threshold", "effect", "example_request_ids"):
        row[name] = getattr(alert, name)
    for name in ("cursor", "acknowledged_by", "acknowledge_note"):
        row[name] = getattr(alert, name)
    for name in ("reference", "current", "latest"):
        window = getattr(alert, f"{name}_window")
        row[f"{name}_start_us"] = int(window.start_time.timestamp() * 1_000_000)
        row[f"{name}_end_us"] = int(window.end_time.timestamp() * 1_000_000)
        row[f"{name}_count"] = window.summary.count
        row[f"{name}_mean"] = window.summary.mean
        row[f"{name}_deviation"] = window.summary.deviation
    monitor, _ = make_monitor()
    announced: list[bool] = []
    reading = restorer(FakeStore({ALERTS_SQL: [row]}), monitor, announced)
    for _ in range(2):
        await reading.try_restore()
    assert list(monitor.book.of_tenant("acme")) == [alert]
    assert announced == [True]
