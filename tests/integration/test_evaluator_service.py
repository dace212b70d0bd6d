"""The evaluator as a service: its own wiring on the memory bus, real gRPC, and a retriever that checks who asks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from binnacle.evaluator.v1 import evaluator_service_pb2 as rpc
from binnacle.evaluator.v1 import evaluator_service_pb2_grpc as stubs
from binnacle.events.v1.evaluation_scored_pb2 import EvaluationScored
from binnacle.events.v1.interaction_completed_pb2 import InteractionCompleted, InteractionOutcome
from binnacle.retriever.v1 import retriever_service_pb2 as retriever
from binnacle.retriever.v1 import retriever_service_pb2_grpc as retriever_stubs
from servicekit.adapters.memory.event_bus import MemoryEventBus
from servicekit.domain.score import Metric
from servicekit.errors import InvalidRequest
from servicekit.events.topics import EVALUATION_SCORED, INTERACTION_COMPLETED
from servicekit.ports.event_bus import OutgoingEvent
from servicekit.rpc.auth import current_caller
from servicekit.runtime.service import RpcService, Service, Stack
from servicekit.runtime.settings import ServiceSettings, settings_config
from servicekit.testing.in_process import Trust, caller, channel_to, running_service
from services.evaluator import bootstrap
from services.evaluator.config import Settings

STORED, ERASED = "a" * 64, "b" * 64
TEXT = "Tuples are immutable sequences."


class RetrieverSettings(ServiceSettings):
    """Settings of the retriever that stands in."""

    model_config = settings_config("retriever")
    port: int = 0


@dataclass
class StandInRetriever(retriever_stubs.RetrieverServiceServicer):
    """Knows one chunk, has erased another; remembers whose tenant asked."""

    tenants: list[str] = field(default_factory=list)

    async def BatchGetChunks(  # noqa: N802  # the proto names it
        self, request: retriever.BatchGetChunksRequest, _context: Any
    ) -> retriever.BatchGetChunksResponse:
        """Chunk, tombstone, or unknown."""
        self.tenants.append(current_caller().tenant)
        response = retriever.BatchGetChunksResponse()
        for content_hash in request.content_hashes:
            stored = response.chunks.add(content_hash=content_hash)
            if content_hash == STORED:
                stored.chunk.text = TEXT
            elif content_hash == ERASED:
                stored.tombstone.SetInParent()
            else:
                stored.unknown.SetInParent()
        return response


@dataclass
class Running:
    """A running evaluator and its surroundings."""

    stub: Any
    bus: MemoryEventBus
    retriever: StandInRetriever

    async def complete(self, *content_hashes: str, tenant: str = "acme") -> dict[str, EvaluationScored]:
        """Publish an interaction with these chunks; its evaluations by metric."""
        message = InteractionCompleted(
            request_id="r-1",
            outcome=InteractionOutcome.INTERACTION_OUTCOME_ANSWERED,
            query="Are tuples immutable?",
            answer="Tuples are immutable.",
        )
        message.complete_time.FromDatetime(datetime.now(UTC))
        for rank, content_hash in enumerate(content_hashes, start=1):
            message.chunks.add(content_hash=content_hash, rank=rank, used=True)
        await self.bus.publish(
            OutgoingEvent(topic=INTERACTION_COMPLETED, key="r-1", id="e-1", tenant=tenant, message=message)
        )
        await self.bus.drain()
        found = [event.message for event in self.bus.published if event.topic == EVALUATION_SCORED]
        return {scored.metric: scored for scored in found if isinstance(scored, EvaluationScored)}


@asynccontextmanager
async def evaluator(folder: Path) -> AsyncIterator[Running]:
    """The evaluator beside a stand-in retriever that believes the same key."""
    trust, servicer, kept = Trust.create(folder), StandInRetriever(), dict[str, Any]()

    async def build_retriever(_settings: RetrieverSettings, _stack: Stack) -> Service:
        add = partial(retriever_stubs.add_RetrieverServiceServicer_to_server, servicer)
        name = "binnacle.retriever.v1.RetrieverService"
        return Service("retriever", (RpcService(name, add, scopes={"BatchGetChunks": "search"}),))

    async def build(settings: Settings, stack: Stack) -> Service:
        service = await bootstrap.build(settings, stack)
        kept["bus"] = service.bus
        return service

    common: dict[str, Any] = {"token_public_key_file": trust.public_key_file, "metrics_port": 0, "drain_s": 0}
    async with running_service(RetrieverSettings(**common), build_retriever) as standing_in:
        settings = Settings(
            port=0,
            event_bus_url="memory://",
            retriever_target=f"127.0.0.1:{standing_in.port}",
            token_private_key_file=trust.private_key_file,
            **common,
        )
        async with running_service(settings, build) as lifecycle, channel_to(lifecycle, trust) as channel:
            with caller():
                yield Running(stubs.EvaluatorServiceStub(channel), kept["bus"], servicer)


async def test_chunk_texts_are_read_in_the_events_tenant(tmp_path: Path) -> None:
    """The token that the evaluator signs names the tenant of the interaction."""
    async with evaluator(tmp_path) as running:
        scores = await running.complete(STORED, tenant="globex")
    assert running.retriever.tenants == ["globex"]
    assert scores["groundedness"].value == pytest.approx(1.0)
    assert set(scores) == set(Metric)


@pytest.mark.parametrize(
    ("content_hash", "reason"), [(ERASED, "CHUNK_ERASED"), ("c" * 64, "CHUNK_NOT_FOUND"), ("?", "CHUNK_NOT_FOUND")]
)
async def test_missing_chunks_leave_a_reason(tmp_path: Path, content_hash: str, reason: str) -> None:
    """Erased, unknown and malformed hashes end as unmeasured scores, never as a stuck event."""
    async with evaluator(tmp_path) as running:
        scores = await running.complete(STORED, content_hash)
    assert scores["groundedness"].unmeasured_reason == reason
    assert scores["answer_relevance"].HasField("value")


async def test_score_answer_gives_the_metrics_of_the_log(tmp_path: Path) -> None:
    """The same formulas on request, all metrics or those named."""
    request = rpc.ScoreAnswerRequest(
        question="Are tuples immutable?", answer="Tuples are immutable sequences [1].", chunk_texts=[TEXT]
    )
    async with evaluator(tmp_path) as running:
        everything = await running.stub.ScoreAnswer(request)
        request.metrics.append("citation_precision")
        (one,) = (await running.stub.ScoreAnswer(request)).scores
    assert [score.metric for score in everything.scores] == list(Metric)
    assert (one.metric, one.value) == ("citation_precision", 1.0)


BAD_REQUESTS = [
    (rpc.ScoreAnswerRequest(answer="a"), "question"),
    (rpc.ScoreAnswerRequest(question=" ", answer="a"), "question"),
    (rpc.ScoreAnswerRequest(question="q"), "answer"),
    (rpc.ScoreAnswerRequest(question="q" * 32_769, answer="a"), "question"),
    (rpc.ScoreAnswerRequest(question="q", answer="a" * 65_537), "answer"),
    (rpc.ScoreAnswerRequest(question="q", answer="a", chunk_texts=["c"] * 101), "chunk_texts"),
    (rpc.ScoreAnswerRequest(question="q", answer="a", chunk_texts=["c" * 65_537]), "chunk_texts[0]"),
    (rpc.ScoreAnswerRequest(question="q", answer="a", metrics=["beauty"]), "metrics[0]"),
]


async def test_bad_requests_are_refused_by_field(tmp_path: Path) -> None:
    """Empty, oversized and unknown values are INVALID_ARGUMENT under their field, and the next request works."""
    async with evaluator(tmp_path) as running:
        for request, field_name in BAD_REQUESTS:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await running.stub.ScoreAnswer(request)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert field_name in (caught.value.details() or "")
        assert await running.stub.ScoreAnswer(rpc.ScoreAnswerRequest(question="q", answer="a"))


async def test_a_scope_is_needed(tmp_path: Path) -> None:
    """A credential without `evaluate` is refused."""
    async with evaluator(tmp_path) as running:
        with caller(scopes=("alerts",)), pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.ScoreAnswer(rpc.ScoreAnswerRequest(question="q", answer="a"))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_without_a_signing_key_the_evaluator_does_not_start(tmp_path: Path) -> None:
    """It could never read a chunk, so it says so at once."""
    trust = Trust.create(tmp_path)
    settings = Settings(port=0, metrics_port=0, event_bus_url="memory://", token_public_key_file=trust.public_key_file)
    with pytest.raises(InvalidRequest, match="token_private_key_file"):
        async with running_service(settings, bootstrap.build):
            pass
