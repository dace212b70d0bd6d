"""Analytics as its callers meet it: real gRPC, real ClickHouse, events from a real bus."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from binnacle.analytics.v1 import analytics_service_pb2 as pb
from binnacle.analytics.v1 import analytics_service_pb2_grpc as stubs
from binnacle.events.v1.evaluation_scored_pb2 import EvaluationScored
from binnacle.events.v1.feedback_recorded_pb2 import FeedbackRecorded
from binnacle.events.v1.guardrail_decided_pb2 import GuardrailDecided
from binnacle.events.v1.interaction_completed_pb2 import InteractionCompleted
from servicekit.adapters.registry import open_event_bus
from servicekit.domain.identity import new_identity
from servicekit.events import topics
from servicekit.ports.clock import SystemClock
from servicekit.ports.event_bus import EventBus, OutgoingEvent
from servicekit.testing.in_process import Trust, caller, channel_to, running_service
from services.analytics.bootstrap import build
from services.analytics.config import Settings
from services.local.broker import run_broker
from tests.clickhouse_process import FrontProcess, running_front

pytestmark = pytest.mark.slow

_NOW = datetime.now(UTC).replace(microsecond=123456)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    """One front for the module."""
    with running_front(tmp_path_factory.mktemp("front")) as front:
        yield front


@asynccontextmanager
async def _stack(
    front: FrontProcess, folder: Path
) -> "AsyncIterator[tuple[stubs.AnalyticsServiceAsyncStub, EventBus]]":
    trust = Trust.create(folder)
    async with run_broker() as broker:
        settings = Settings(
            port=0,
            metrics_port=0,
            event_bus_url=f"kafka://{broker.bootstrap}",
            analytics_store_url=front.store_url,
            batch_age_s=0.05,
            state_dir=folder,
            token_public_key_file=trust.public_key_file,
        )
        identity = new_identity("gateway", start_time=datetime.now(UTC))
        async with (
            running_service(settings, build) as service,
            channel_to(service, trust) as channel,
            open_event_bus(f"kafka://{broker.bootstrap}", identity=identity, clock=SystemClock()) as bus,
        ):
            yield stubs.AnalyticsServiceStub(channel), bus


def _at(minutes_ago: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(_NOW - timedelta(minutes=minutes_ago))
    return stamp


def _interaction(number: int, *, tenant: str, **fields: object) -> InteractionCompleted:
    message = InteractionCompleted(
        request_id=f"{tenant}-{number}", tenant_id=tenant, outcome=1, query="why?", answer="because [1].",
        route="default", model="m", cost_microusd=10, complete_time=_at(number), accept_time=_at(number + 1),
        duration_us=1000 * number,
    )  # fmt: skip
    message.usage.input_tokens = 7
    message.prompt.prompt_id, message.prompt.version = "answer", "3"
    message.chunks.add(chunk_id="c", document_id="d", rank=1, score=0.5, used=True)
    for name, value in fields.items():
        setattr(message, name, value)
    return message


async def _publish(bus: EventBus, topic: str, message: Message, *, identifier: str, tenant: str) -> None:
    await bus.publish(OutgoingEvent(topic, "key", identifier, tenant, message))


async def _publish_interactions(bus: EventBus, *, tenant: str, count: int) -> None:
    for number in range(1, count + 1):
        message = _interaction(number, tenant=tenant)
        await _publish(bus, topics.INTERACTION_COMPLETED, message, identifier=message.request_id, tenant=tenant)


async def _listed(stub: "stubs.AnalyticsServiceAsyncStub", count: int) -> pb.ListInteractionsResponse:
    async with asyncio.timeout(20):
        while True:
            response = await stub.ListInteractions(pb.ListInteractionsRequest(page_size=500))
            if len(response.interactions) >= count:
                return response
            await asyncio.sleep(0.05)


async def test_an_interaction_is_answered_with_all_that_was_said_about_it(front: FrontProcess, tmp_path: Path) -> None:
    """Interaction, verdicts, scores and standing feedback come back; for the own tenant, or for an admin."""
    async with _stack(front, tmp_path) as (stub, bus):
        sent = _interaction(1, tenant="dossier")
        identity = {"tenant": "dossier"}
        score = EvaluationScored(
            evaluation_id="s1", request_id=sent.request_id, metric="groundedness", value=0.0, tenant_id="dossier",
            score_time=_at(0), interaction_time=_at(1),
        )  # fmt: skip
        decided = GuardrailDecided(request_id=sent.request_id, surface=1, action=1, decide_time=_at(1))
        decided.verdicts.add(surface=1, detector="pii.email", action=1).span.end = 4
        await _publish(bus, topics.EVALUATION_SCORED, score, identifier="s1", **identity)
        await _publish(bus, topics.GUARDRAIL_DECIDED, decided, identifier="g1", **identity)
        for name, supersedes in (("f1", ""), ("f2", "f1")):
            feedback = FeedbackRecorded(
                feedback_id=name, request_id=sent.request_id, kind=1, rating=4, supersedes=supersedes
            )
            await _publish(bus, topics.FEEDBACK_RECORDED, feedback, identifier=name, **identity)
        await _publish(bus, topics.INTERACTION_COMPLETED, sent, identifier=sent.request_id, **identity)
        request = pb.GetInteractionRequest(request_id=sent.request_id)
        with caller(tenant="dossier", scopes={"analytics"}):
            await _listed(stub, 1)
            async with asyncio.timeout(20):
                while not (response := await stub.GetInteraction(request)).feedback or not response.evaluations:
                    await asyncio.sleep(0.05)
        assert response.interaction == sent
        assert [one.detector for one in response.verdicts] == ["pii.email"]
        assert response.evaluations[0] == score
        assert response.evaluations[0].HasField("value")
        assert [one.feedback_id for one in response.feedback] == ["f2"]
        with caller(tenant="other", scopes={"analytics"}), pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetInteraction(request)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        with caller(tenant="other", scopes={"analytics", "admin"}):
            assert (await stub.GetInteraction(request)).interaction == sent


async def test_pages_hold_every_interaction_once_newest_first(front: FrontProcess, tmp_path: Path) -> None:
    """Page tokens lead through all rows of the tenant, without repeats, whatever the page size."""
    async with _stack(front, tmp_path) as (stub, bus):
        await _publish_interactions(bus, tenant="pages", count=7)
        with caller(tenant="pages", scopes={"analytics"}):
            whole = await _listed(stub, 7)
            seen: list[str] = []
            request = pb.ListInteractionsRequest(page_size=3, route="default")
            while True:
                page = await stub.ListInteractions(request)
                seen += [one.request_id for one in page.interactions]
                if not page.next_page_token:
                    break
                request.page_token = page.next_page_token
            assert seen == [f"pages-{number}" for number in range(1, 8)]
            assert [one.request_id for one in whole.interactions] == seen
            empty = await stub.ListInteractions(pb.ListInteractionsRequest(route="nowhere"))
            assert not empty.interactions


async def test_usage_is_counted_by_group_for_the_own_tenant(front: FrontProcess, tmp_path: Path) -> None:
    """Sums and percentiles by what is asked for; another tenant's rows are an admin's only."""
    async with _stack(front, tmp_path) as (stub, bus):
        await _publish_interactions(bus, tenant="usage-a", count=4)
        await _publish_interactions(bus, tenant="usage-b", count=2)
        failed = _interaction(9, tenant="usage-a", outcome=4, cost_microusd=1)
        await _publish(bus, topics.INTERACTION_COMPLETED, failed, identifier="failed", tenant="usage-a")
        with caller(tenant="usage-a", scopes={"analytics"}):
            await _listed(stub, 5)
            total = (await stub.GetUsage(pb.GetUsageRequest())).rows
            prompts = (
                await stub.GetUsage(
                    pb.GetUsageRequest(group_by=[pb.USAGE_GROUP_TENANT, pb.USAGE_GROUP_PROMPT, pb.USAGE_GROUP_DAY])
                )
            ).rows
        assert [(row.requests, row.errors, row.input_tokens, row.cost_microusd) for row in total] == [(5, 1, 35, 41)]
        assert 1000 <= total[0].latency_p50_us <= 4000
        assert {row.group["prompt"] for row in prompts} == {"answer@3"}
        assert {row.group["tenant"] for row in prompts} == {"usage-a"}
        with caller(tenant="admin", scopes={"analytics", "admin"}):
            await _listed(stub, 7)
            groups = (await stub.GetUsage(pb.GetUsageRequest(group_by=[pb.USAGE_GROUP_TENANT]))).rows
        assert {"usage-a": 5, "usage-b": 2}.items() <= {row.group["tenant"]: row.requests for row in groups}.items()


async def test_completeness_accounts_for_every_producer(front: FrontProcess, tmp_path: Path) -> None:
    """What a producer reported is there, nothing is missing, and it is open as long as it lives."""
    async with _stack(front, tmp_path) as (stub, bus):
        await _publish_interactions(bus, tenant="complete", count=5)
        with caller(tenant="complete", scopes={"analytics"}):
            await _listed(stub, 5)
            response = await stub.GetCompleteness(pb.GetCompletenessRequest(topic=topics.INTERACTION_COMPLETED))
        own = [entry for entry in response.entries if entry.state == pb.PRODUCER_STATE_OPEN]
        assert sum(entry.stored for entry in own) == 5
        assert (response.missing, response.evicted, response.complete) == (0, 0, False)
        assert not any(entry.unknown_tail for entry in own)


_BAD: tuple[tuple[str, Message, str], ...] = (
    ("GetInteraction", pb.GetInteractionRequest(), "request_id"),
    ("GetInteraction", pb.GetInteractionRequest(request_id="x" * 300), "request_id"),
    ("ListInteractions", pb.ListInteractionsRequest(page_size=-1), "page_size"),
    ("ListInteractions", pb.ListInteractionsRequest(page_size=501), "page_size"),
    ("ListInteractions", pb.ListInteractionsRequest(page_token="rubbish"), "page_token"),
    ("ListInteractions", pb.ListInteractionsRequest(start_time=Timestamp(seconds=2**61)), "start_time"),
    ("ListInteractions", pb.ListInteractionsRequest(end_time=Timestamp(seconds=5, nanos=-1)), "end_time"),
    ("ListInteractions", pb.ListInteractionsRequest(start_time=_at(0), end_time=_at(5)), "start_time"),
    ("ListInteractions", pb.ListInteractionsRequest(route="r" * 300), "route"),
    ("GetUsage", pb.GetUsageRequest(group_by=[0]), "group_by[0]"),
    ("GetUsage", pb.GetUsageRequest(group_by=[1, 1]), "group_by[1]"),
    ("GetUsage", pb.GetUsageRequest(group_by=[77]), "group_by[0]"),
    ("GetUsage", pb.GetUsageRequest(start_time=Timestamp(seconds=1)), "start_time"),
    ("GetCompleteness", pb.GetCompletenessRequest(topic="no.such.topic"), "topic"),
    ("ListAffectedAnswers", pb.ListAffectedAnswersRequest(), "document_id"),
    ("ListAffectedAnswers", pb.ListAffectedAnswersRequest(document_id="d" * 300), "document_id"),
    ("ListAffectedAnswers", pb.ListAffectedAnswersRequest(document_id="d", revision=-1), "revision"),
    ("ListAffectedAnswers", pb.ListAffectedAnswersRequest(document_id="d", page_size=501), "page_size"),
    ("ListAffectedAnswers", pb.ListAffectedAnswersRequest(document_id="d", page_token="rubbish"), "page_token"),
    (
        "ListAffectedAnswers",
        pb.ListAffectedAnswersRequest(document_id="d", start_time=_at(0), end_time=_at(5)),
        "start_time",
    ),
)


async def test_affected_answers_are_the_tenants_own(front: FrontProcess, tmp_path: Path) -> None:
    """An id of a document is its tenant's: nobody else is told of answers with it, an admin of another neither."""
    everything = pb.ListAffectedAnswersRequest(
        document_id="d", include_uncited=True, page_size=2, start_time=Timestamp(seconds=-(10**10)),
        end_time=Timestamp(seconds=10**11),
    )  # fmt: skip
    async with _stack(front, tmp_path) as (stub, bus):
        await _publish_interactions(bus, tenant="affected", count=3)
        with caller(tenant="affected", scopes={"analytics"}):
            await _listed(stub, 3)
            first = await stub.ListAffectedAnswers(everything)
            assert [one.request_id for one in first.answers] == ["affected-1", "affected-2"]
            assert (first.total, first.answers[0].cited) == (3, False)
            everything.page_token = first.next_page_token
            second = await stub.ListAffectedAnswers(everything)
            assert [one.request_id for one in second.answers] == ["affected-3"]
            assert (second.total, second.next_page_token) == (3, "")
            cited = await stub.ListAffectedAnswers(pb.ListAffectedAnswersRequest(document_id="d"))
            assert (cited.total, list(cited.answers)) == (0, [])
        everything.page_token = ""
        for scopes in ({"analytics"}, {"admin", "analytics"}):
            with caller(tenant="other", scopes=scopes):
                assert (await stub.ListAffectedAnswers(everything)).total == 0


async def test_bad_requests_name_field_value_and_fix(front: FrontProcess, tmp_path: Path) -> None:
    """Each gets INVALID_ARGUMENT with its field, and the next request works."""
    async with _stack(front, tmp_path) as (stub, _bus):
        with caller(tenant="acme", scopes={"analytics"}):
            for method, request, field in _BAD:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await getattr(stub, method)(request)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, (method, request)
                assert _field_of(caught.value) == field, (method, request)
            hostile = pb.GetInteractionRequest(request_id="' OR 1=1 -- {x:String}")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetInteraction(hostile)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            await stub.GetUsage(pb.GetUsageRequest())
        with caller(tenant="acme", scopes={"search"}), pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetUsage(pb.GetUsageRequest())
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def _field_of(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(error)
    for detail in status.details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            return bad.field_violations[0].field
    return ""
