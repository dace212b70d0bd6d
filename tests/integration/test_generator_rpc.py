"""The generator as a service: real gRPC and authentication, engines on the contract server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from binnacle.generator.v1 import generator_service_pb2 as rpc
from binnacle.generator.v1.generator_service_pb2_grpc import GeneratorServiceStub
from binnacle.type.v1 import chunk_pb2, generation_pb2, text_pb2
from servicekit.testing.in_process import Trust, caller, channel_to, running_service
from servicekit.testing.tgi_server.server import TgiServer, open_tgi_server
from services.generator.bootstrap import build
from services.generator.config import Settings

_PATIENCE_S = 10.0
CHUNKS = [
    chunk_pb2.ScoredChunk(
        rank=1,
        score=1.0,
        chunk=chunk_pb2.Chunk(
            chunk_id="c1",
            document_id="d1",
            revision=3,
            content_hash="a" * 64,
            title="Harbour rules",
            text="The harbour opens at six in the morning. It closes at ten.",
            span=text_pb2.Span(start=100, end=158),
        ),
    )
]


@dataclass
class Running:
    """A generator in front of two contract servers, `first` behind the default alias, `second` its stand-in."""

    stub: Any
    first: TgiServer
    second: TgiServer

    async def ask(self, timeout_s: float = _PATIENCE_S, **fields: Any) -> list[rpc.GenerateAnswerResponse]:
        """All events of one answer."""
        fields = {"question": "When does the harbour open?", "chunks": CHUNKS, **fields}
        request = rpc.GenerateAnswerRequest(**fields)
        return [event async for event in self.stub.GenerateAnswer(request, timeout=timeout_s)]


def _models(first: str, second: str) -> dict[str, Any]:
    prices = {"input_price_microusd": 1_000_000, "output_price_microusd": 2_000_000}
    return {
        "price_version": "2030-01",
        "models": {
            "default": {"engine_url": f"tgi{first[4:]}", "fallbacks": ["spare"], "first_token_s": 1.5, **prices},
            "spare": {"engine_url": f"openai{second[4:]}/v1", **prices},
            "small": {"engine_url": f"tgi{first[4:]}", "window_tokens": 256},
            "extracts": {"engine_url": "extractive://"},
        },
    }


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """The service, and a caller with every scope."""
    trust = Trust.create(tmp_path)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(open_tgi_server())
        second = await stack.enter_async_context(open_tgi_server())
        second.turn(model="contract/spare", answer="The spare engine says so [1] [4].")
        models_file = tmp_path / "models.yaml"
        models_file.write_text(yaml.safe_dump(_models(first.url, second.url)), "utf-8")
        settings = Settings(
            port=0, metrics_port=0, drain_s=0, token_public_key_file=trust.public_key_file, models_file=models_file
        )
        lifecycle = await stack.enter_async_context(running_service(settings, build))
        channel = await stack.enter_async_context(channel_to(lifecycle, trust))
        stack.enter_context(caller())
        yield Running(GeneratorServiceStub(channel), first, second)


def _end(events: list[rpc.GenerateAnswerResponse]) -> rpc.GenerationEnd:
    assert [event.WhichOneof("event") for event in events].count("end") == 1
    assert events[-1].WhichOneof("event") == "end"
    end = events[-1].end
    assert "".join(event.token.text for event in events[:-1]) == end.answer
    return end


def _detail(error: grpc.aio.AioRpcError, kind: Callable[[], Any]) -> Any:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # an AioRpcError has what it reads
    assert status is not None
    wanted = kind()
    for detail in status.details:
        if detail.Unpack(wanted):
            return wanted
    raise AssertionError(f"no {type(wanted).__name__} in {status}")


async def test_answer_has_tokens_citations_usage_and_cost(running: Running) -> None:
    """The end holds the joined tokens, the resolved marker, what it took and what it cost."""
    end = _end(await running.ask(request_id="r1"))
    assert end.answer == "The documents answer this in their first source [1]."
    (citation,) = end.citations
    assert end.answer[citation.answer_span.start : citation.answer_span.end] == citation.marker == "[1]"
    assert (citation.chunk_id, citation.revision, citation.source_span.start) == ("c1", 3, 100)
    counts = running.first.counts
    assert (end.usage.input_tokens, end.usage.output_tokens) == (counts.input_tokens, counts.output_tokens)
    assert end.cost_microusd == counts.input_tokens + 2 * counts.output_tokens
    assert end.price_version == "2030-01"
    assert end.finish_reason == generation_pb2.FINISH_REASON_STOP
    assert list(end.packed_chunk_ids) == ["c1"]
    assert (end.prompt.prompt_id, end.prompt.version, len(end.prompt.hash)) == ("grounded-answer", "1", 64)
    (attempt,) = end.attempts
    assert (attempt.model_alias, attempt.model, attempt.error_reason) == ("default", "contract/tgi", "")
    assert attempt.engine.startswith("tgi://")
    assert 0 < attempt.time_to_first_token_us <= attempt.duration_us
    assert not end.degradations


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("refuse", "ENGINE_OVERLOADED"),
        ("error", "GENERATION_FAILED"),
        ("drop", "STREAM_CUT"),
        ("garbage", "MALFORMED_RESPONSE"),
        ("hang", "FIRST_TOKEN_TIMEOUT"),
    ],
)
async def test_failure_before_the_first_token_falls_back(running: Running, fault: str, reason: str) -> None:
    """Another model answers, and the failed attempt, its reason and the degradation are told."""
    running.first.turn(fault=fault)
    end = _end(await running.ask())
    assert end.answer == "The spare engine says so [1] [4]."
    assert list(end.invalid_markers) == ["[4]"]
    assert [(a.number, a.model_alias, a.error_reason) for a in end.attempts] == [
        (1, "default", reason),
        (2, "spare", ""),
    ]
    assert [(d.rung, d.cause) for d in end.degradations] == [("fallback_model", reason)]
    assert end.usage.output_tokens == running.second.counts.output_tokens
    assert end.cost_microusd == sum(attempt.cost_microusd for attempt in end.attempts)


async def test_last_resort_is_extractive(running: Running) -> None:
    """When every model server is down the chunks themselves answer."""
    running.first.turn(fault="drop")
    running.second.turn(fault="drop")
    end = _end(await running.ask())
    assert end.answer.startswith("The harbour opens at six in the morning [1].")
    assert [attempt.model_alias for attempt in end.attempts] == ["default", "spare", "extractive"]
    assert [d.rung for d in end.degradations] == ["extractive_answer"]


async def test_cut_after_the_first_token_is_an_error(running: Running) -> None:
    """Text that was sent is not answered twice: the stream ends UNAVAILABLE, and tells what it took."""
    running.first.turn(fault="cut", fault_after_tokens=3)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await running.ask()
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    info = _detail(raised.value, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == ("STREAM_CUT", "generator.binnacle")
    attempt = _detail(raised.value, generation_pb2.Attempt)
    assert (attempt.number, attempt.model_alias, attempt.error_reason) == (1, "default", "STREAM_CUT")
    assert attempt.usage.output_tokens == 3
    assert attempt.cost_microusd == attempt.usage.input_tokens + 2 * 3
    running.first.turn(fault="none")
    assert _end(await running.ask()).answer


async def test_stall_ends_with_the_deadline(running: Running) -> None:
    """A stream that stops is over when the caller's deadline is, at the engine too."""
    running.first.turn(fault="stall", fault_after_tokens=2)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await running.ask(timeout_s=0.6)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(running.first.idle(), _PATIENCE_S)
    assert running.first.counts.cancelled == 1


async def test_cancelling_the_call_cancels_the_engine(running: Running) -> None:
    """A caller that goes away stops the work upstream."""
    running.first.turn(output_tokens=200, tokens_per_s=100)
    call = running.stub.GenerateAnswer(rpc.GenerateAnswerRequest(question="When?", chunks=CHUNKS), timeout=_PATIENCE_S)
    await call.read()
    call.cancel()
    await asyncio.wait_for(running.first.idle(), _PATIENCE_S)
    assert running.first.counts.cancelled == 1
    assert running.first.counts.output_tokens < 200


async def test_engine_refusal_is_the_callers_error(running: Running) -> None:
    """What the engine finds invalid is INVALID_ARGUMENT, and no other engine is bothered with it."""
    running.first.turn(fault="invalid")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await running.ask()
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert running.second.counts.generations == 0


async def test_small_window_drops_and_tells(running: Running) -> None:
    """Chunks and messages that do not fit are left out and reported."""
    chunk = chunk_pb2.Chunk(chunk_id="big", text="The harbour opens at six, long. " * 40)
    chunks = [chunk_pb2.ScoredChunk(rank=n, score=1 / n, chunk=chunk) for n in (1, 2)]
    end = _end(await running.ask(model="small", chunks=chunks))
    assert end.dropped_chunks == 2
    assert ("fewer_chunks", "CONTEXT_WINDOW") in [(d.rung, d.cause) for d in end.degradations]


async def test_extractive_refusal_is_told(running: Running) -> None:
    """An engine that finds no support says so, and cites nothing."""
    end = _end(await running.ask(model="extracts", question="Which vaccine helps a dog?"))
    assert end.refused
    assert not end.citations


@pytest.mark.parametrize(
    ("fields", "code", "told"),
    [
        ({"question": ""}, grpc.StatusCode.INVALID_ARGUMENT, "question"),
        ({"question": " \n"}, grpc.StatusCode.INVALID_ARGUMENT, "question"),
        ({"question": "x" * 32_769}, grpc.StatusCode.INVALID_ARGUMENT, "question"),
        ({"question": "word " * 6_000}, grpc.StatusCode.INVALID_ARGUMENT, "question"),
        ({"chunks": CHUNKS * 101}, grpc.StatusCode.INVALID_ARGUMENT, "chunks"),
        (
            {"chunks": [chunk_pb2.ScoredChunk(rank=1)]},
            grpc.StatusCode.INVALID_ARGUMENT,
            "chunks[0].chunk.text",
        ),
        ({"history": [text_pb2.Message(content="x")]}, grpc.StatusCode.INVALID_ARGUMENT, "history[0].role"),
        (
            {"history": [text_pb2.Message(role=text_pb2.ROLE_USER)]},
            grpc.StatusCode.INVALID_ARGUMENT,
            "history[0].content",
        ),
        (
            {"sampling": generation_pb2.Sampling(temperature=-1)},
            grpc.StatusCode.INVALID_ARGUMENT,
            "sampling.temperature",
        ),
        (
            {"sampling": generation_pb2.Sampling(max_output_tokens=0)},
            grpc.StatusCode.INVALID_ARGUMENT,
            "sampling.max_output_tokens",
        ),
        (
            {"sampling": generation_pb2.Sampling(temperature=float("nan"))},
            grpc.StatusCode.INVALID_ARGUMENT,
            "sampling.temperature",
        ),
        (
            {"sampling": generation_pb2.Sampling(seed=-(2**63))},
            grpc.StatusCode.INVALID_ARGUMENT,
            "sampling.seed",
        ),
        ({"request_id": "x" * 129}, grpc.StatusCode.INVALID_ARGUMENT, "request_id"),
        ({"model": "gpt"}, grpc.StatusCode.NOT_FOUND, "default, extracts, small, spare"),
        ({"prompt_id": "poem"}, grpc.StatusCode.NOT_FOUND, "grounded-answer"),
    ],
)
async def test_bad_input_is_refused_and_the_next_request_works(
    running: Running, fields: dict[str, Any], code: grpc.StatusCode, told: str
) -> None:
    """Each bad field has its status, is named, and harms nothing."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await running.ask(**fields)
    assert raised.value.code() is code
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        violations = _detail(raised.value, error_details_pb2.BadRequest).field_violations
        assert [violation.field for violation in violations] == [told]
    else:
        assert told in (raised.value.details() or "")
    assert _end(await running.ask()).answer


async def test_counting_is_the_models(running: Running) -> None:
    """Each model counts by its own engine's tokenizer."""
    exact = await running.stub.CountTokens(rpc.CountTokensRequest(text="one two, three"), timeout=5)
    words = await running.stub.CountTokens(rpc.CountTokensRequest(text="one two three", model="extracts"), timeout=5)
    assert (exact.token_count, exact.estimated) == (4, False)
    assert words.token_count == 3


async def test_models_are_listed_with_prices_and_availability(running: Running) -> None:
    """Every alias by name, with what its engine reports and whether it answers now."""
    models = {m.alias: m for m in (await running.stub.ListModels(rpc.ListModelsRequest(), timeout=5)).models}
    assert list(models) == ["default", "extracts", "small", "spare"]
    assert all(model.available for model in models.values())
    assert models["default"].input_price_microusd == 1_000_000
    assert models["small"].context_window_tokens == 256
    assert models["spare"].model == "contract/spare"


async def test_without_the_scope_nothing_is_generated(running: Running) -> None:
    """The scope `generate` is needed for every method."""
    with caller(scopes=("search",)), pytest.raises(grpc.aio.AioRpcError) as raised:
        await running.ask()
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
