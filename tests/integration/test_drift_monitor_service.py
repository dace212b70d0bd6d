"""The drift monitor as a service: its own wiring on the memory bus, real gRPC, a store that is away or answers."""

import asyncio
import gc
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from binnacle.drift_monitor.v1 import drift_monitor_service_pb2 as rpc
from binnacle.drift_monitor.v1 import drift_monitor_service_pb2_grpc as stubs
from binnacle.events.v1.drift_alerted_pb2 import DriftAlerted
from binnacle.events.v1.evaluation_scored_pb2 import EvaluationScored
from binnacle.events.v1.guardrail_decided_pb2 import GuardrailDecided
from binnacle.events.v1.interaction_completed_pb2 import InteractionCompleted, InteractionOutcome
from servicekit.adapters.memory.event_bus import MemoryEventBus
from servicekit.errors import BackendUnavailable
from servicekit.events.topics import (
    DRIFT_ALERTED,
    EVALUATION_SCORED,
    GUARDRAIL_DECIDED,
    INTERACTION_COMPLETED,
)
from servicekit.ports.event_bus import OutgoingEvent
from servicekit.runtime.service import Service, Stack
from servicekit.testing.in_process import Trust, caller, channel_to, running_service
from services.drift_monitor import bootstrap
from services.drift_monitor.config import Settings
from tests.unit.drift_monitor.drift_fakes import MeansLaboratory

START = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)


class SilentStore:
    """An analytics store that knows nothing, or is away."""

    def __init__(self, *, away: bool = False) -> None:
        self.away = away

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Mapping[str, Any]]:
        """No rows."""
        await self.ping()
        return ()

    async def ping(self) -> None:
        """Raise while away."""
        if self.away:
            raise BackendUnavailable("clickhouse is away")


@dataclass
class Running:
    """A running drift monitor and its surroundings."""

    stub: Any
    bus: MemoryEventBus
    lifecycle: Any

    async def publish(self, topic: str, message: Message, *, key: str, tenant: str = "acme") -> None:
        """Publish an event as its service would."""
        event_id = f"{topic}/{key}"
        await self.bus.publish(OutgoingEvent(topic=topic, key=key, id=event_id, tenant=tenant, message=message))

    async def ask(self, first: int, count: int, *, words: int) -> None:
        """Interactions number `first` and on, with questions of so many words, scores and decisions."""
        for place in range(first, first + count):
            await self.publish(INTERACTION_COMPLETED, interaction(place, words + place % 2), key=f"r-{place}")
            score = EvaluationScored(request_id=f"r-{place}", metric="groundedness", value=0.9 + place % 3 / 100)
            await self.publish(EVALUATION_SCORED, score, key=f"r-{place}")
            decision = GuardrailDecided(request_id=f"r-{place}", action=1)
            await self.publish(GUARDRAIL_DECIDED, decision, key=f"r-{place}")
        await self.bus.drain()


def interaction(place: int, words: int) -> InteractionCompleted:
    """An answered interaction."""
    message = InteractionCompleted(
        request_id=f"r-{place}",
        outcome=InteractionOutcome.INTERACTION_OUTCOME_ANSWERED,
        query="word " * words,
        answer="an answer",
        route="docs",
        duration_us=50_000,
    )
    message.complete_time.FromDatetime(START + timedelta(seconds=place))
    return message


@asynccontextmanager
async def drift_monitor(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, store: SilentStore | None = None, **options: Any
) -> AsyncIterator[Running]:
    """The service, with means for statistics unless `real=True` asks for Evidently."""
    trust = Trust.create(folder)
    kept: dict[str, Any] = {}
    real = options.pop("real", False)

    @asynccontextmanager
    async def open_store(_url: str) -> AsyncIterator[SilentStore]:
        yield store or SilentStore()

    @asynccontextmanager
    async def open_means(**_options: Any) -> AsyncIterator[Any]:
        laboratory: Any = MeansLaboratory()

        async def warm_up() -> None:
            """Nothing to warm."""

        laboratory.warm_up = warm_up
        yield laboratory

    async def build(settings: Settings, stack: Stack) -> Service:
        service = await bootstrap.build(settings, stack)
        kept["bus"] = service.bus
        return service

    monkeypatch.setattr(bootstrap, "open_analytics_store", open_store)
    if not real:
        monkeypatch.setattr(bootstrap, "open_laboratory", open_means)
    settings = Settings(
        port=0,
        metrics_port=0,
        event_bus_url="memory://",
        token_public_key_file=trust.public_key_file,
        evaluate_interval_s=0.01,
        drain_s=0,
        **options,
    )
    async with (
        running_service(settings, build) as lifecycle,
        channel_to(lifecycle, trust, max_message_bytes=16 * 1024 * 1024) as channel,
    ):
        with caller():
            yield Running(stubs.DriftMonitorServiceStub(channel), kept["bus"], lifecycle)
    gc.collect()


async def next_alert(stream: Any) -> rpc.SubscribeAlertsResponse:
    """The next alert of a subscription, heartbeats and the like passed over."""
    async with asyncio.timeout(30):
        while True:
            response = await stream.read()
            assert response is not grpc.aio.EOF
            if response.HasField("alert"):
                return response


async def test_a_shift_reaches_a_live_subscription(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty steady questions, then shifted ones: one alert arrives, is published, listed and acknowledged."""
    async with drift_monitor(tmp_path, monkeypatch) as running:
        stream = running.stub.SubscribeAlerts(rpc.SubscribeAlertsRequest())
        first = await stream.read()
        assert first.synchronized.firing_count == 0
        await running.ask(0, 30, words=5)
        await running.ask(30, 24, words=15)
        alert = (await next_alert(stream)).alert
        assert (alert.signal, alert.segment) == ("question_words", "route=docs")
        assert alert.state == rpc.AlertState.ALERT_STATE_FIRING
        listed = await running.stub.ListAlerts(rpc.ListAlertsRequest())
        assert [one.alert_id for one in listed.alerts] == [alert.alert_id]
        answer = await running.stub.AcknowledgeAlert(
            rpc.AcknowledgeAlertRequest(alert_id=alert.alert_id, note="looking")
        )
        assert answer.alert.acknowledged_by == "tester"
        changed = (await next_alert(stream)).alert
        assert changed.state == rpc.AlertState.ALERT_STATE_ACKNOWLEDGED
        stream.cancel()
        published = [event for event in running.bus.published if event.topic == DRIFT_ALERTED]
        assert [event.key for event in published] == ["acme/route=docs/question_words"] * 2
        assert isinstance(published[0].message, DriftAlerted)
        assert published[0].message.alert.alert_id == alert.alert_id


async def test_another_tenant_sees_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alerts, acknowledgements and reports end at the tenant."""
    async with drift_monitor(tmp_path, monkeypatch) as running:
        stream = running.stub.SubscribeAlerts(rpc.SubscribeAlertsRequest())
        await running.ask(0, 30, words=5)
        await running.ask(30, 20, words=15)
        alert = (await next_alert(stream)).alert
        stream.cancel()
        with caller(tenant="globex"):
            assert not (await running.stub.ListAlerts(rpc.ListAlertsRequest())).alerts
            for call in (
                running.stub.AcknowledgeAlert(rpc.AcknowledgeAlertRequest(alert_id=alert.alert_id)),
                running.stub.GetDriftReport(rpc.GetDriftReportRequest()),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def _with_heartbeat(seconds: int) -> rpc.SubscribeAlertsRequest:
    request = rpc.SubscribeAlertsRequest()
    request.heartbeat_interval.seconds = seconds
    return request


BAD_REQUESTS: list[tuple[str, Message, str]] = [
    ("AcknowledgeAlert", rpc.AcknowledgeAlertRequest(), "alert_id"),
    ("AcknowledgeAlert", rpc.AcknowledgeAlertRequest(alert_id="x", note="n" * 1_025), "note"),
    ("ListAlerts", rpc.ListAlertsRequest(page_size=-1), "page_size"),
    ("ListAlerts", rpc.ListAlertsRequest(page_token="x"), "page_token"),
    ("ListAlerts", rpc.ListAlertsRequest(state=77), "state"),  # type: ignore[arg-type]  # absurd on purpose
    ("SubscribeAlerts", rpc.SubscribeAlertsRequest(after_cursor=-1), "after_cursor"),
    ("SubscribeAlerts", rpc.SubscribeAlertsRequest(after_cursor=2**62), "after_cursor"),
    ("SubscribeAlerts", rpc.SubscribeAlertsRequest(min_severity=9), "min_severity"),  # type: ignore[arg-type]  # absurd on purpose
    ("SubscribeAlerts", rpc.SubscribeAlertsRequest(signals=["x"]), "signals[0]"),
    ("SubscribeAlerts", _with_heartbeat(61), "heartbeat_interval"),
]


async def test_bad_requests_are_refused_by_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each absurd value is INVALID_ARGUMENT under its field's name, and the next request works."""
    async with drift_monitor(tmp_path, monkeypatch) as running:
        for method, request, field in BAD_REQUESTS:
            call = getattr(running.stub, method)(request, timeout=10)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await (call.read() if method == "SubscribeAlerts" else call)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, request
            assert field in (caught.value.details() or "")
        assert not (await running.stub.ListAlerts(rpc.ListAlertsRequest())).alerts


async def test_what_does_not_exist_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown alert and an unknown segment are NOT_FOUND."""
    async with drift_monitor(tmp_path, monkeypatch) as running:
        for call in (
            running.stub.AcknowledgeAlert(rpc.AcknowledgeAlertRequest(alert_id="x")),
            running.stub.GetDriftReport(rpc.GetDriftReportRequest(segment="route=x")),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_scope_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential without `alerts` is refused by name."""
    async with drift_monitor(tmp_path, monkeypatch) as running:
        with caller(scopes=("answer",)), pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.ListAlerts(rpc.ListAlertsRequest())
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_without_clickhouse_the_monitor_keeps_going_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Consumers and judging go on after some patience; readiness names the missing store."""
    store = SilentStore(away=True)
    async with drift_monitor(tmp_path, monkeypatch, store=store, restore_patience_s=0.05) as running:
        stream = running.stub.SubscribeAlerts(_with_heartbeat(1))
        await running.ask(0, 30, words=5)
        await running.ask(30, 20, words=15)
        assert (await next_alert(stream)).alert.signal == "question_words"
        stream.cancel()
        state = running.lifecycle.readiness.report()
        assert state["status"] == "serving"
        assert state["dependencies"]["analytics_store"]["ok"] is False


async def test_rubbish_on_a_topic_becomes_a_dead_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interaction without id or time is put aside, and the next one is taken."""
    async with drift_monitor(tmp_path, monkeypatch) as running:
        await running.publish(INTERACTION_COMPLETED, InteractionCompleted(query="q"), key="none")
        await running.ask(0, 2, words=3)
        assert len(running.bus.dead_letters) == 1


@pytest.mark.slow
async def test_evidently_finds_the_shift_and_reports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real worker process: an alert on the stream and an HTML page within its bound."""
    async with drift_monitor(tmp_path, monkeypatch, real=True) as running:
        stream = running.stub.SubscribeAlerts(rpc.SubscribeAlertsRequest())
        await running.ask(0, 30, words=5)
        await running.ask(30, 24, words=15)
        alert = (await next_alert(stream)).alert
        stream.cancel()
        assert (alert.signal, alert.test) == ("question_words", "ks")
        assert alert.statistic <= alert.threshold
        report = await running.stub.GetDriftReport(rpc.GetDriftReportRequest(segment="route=docs"), timeout=60)
        assert report.segment == "route=docs"
        assert b"question_words" in report.html
        drifted = {state.signal: state.drifted for state in report.signals}
        assert drifted["question_words"]
        assert not drifted["groundedness"]
