"""What a generation gives beside plain text: JSON by a schema, probabilities, settings in force; streamed and whole."""

import asyncio
import json
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
from binnacle.type.v1 import chunk_pb2, generation_pb2
from servicekit.testing.in_process import Trust, caller, channel_to, running_service
from servicekit.testing.tgi_server.server import TgiServer, open_tgi_server
from services.generator.bootstrap import build
from services.generator.config import Settings

_PATIENCE_S = 10.0
_CHUNK = chunk_pb2.Chunk(chunk_id="c1", document_id="d1", text="The harbour opens at six in the morning.")
_SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"answer": {"type": "string"}, "pages": {"type": "array", "items": {"type": "integer"}}},
        "required": ["answer"],
    }
)
_VALID = '{"answer": "At six [1].", "pages": [1, 7]}'
_INVALID = '{"pages": [1]}'


@dataclass
class Running:
    """A generator: `default` on `first`, its stand-in on `second`, `pool` on both."""

    stub: Any
    first: TgiServer
    second: TgiServer

    async def stream(self, **fields: Any) -> list[rpc.GenerateAnswerResponse]:
        """All events of one answer."""
        return [event async for event in self.stub.GenerateAnswer(_request(**fields), timeout=_PATIENCE_S)]

    async def whole(self, **fields: Any) -> rpc.CompleteAnswerResponse:
        """One answer, told as one."""
        request = rpc.CompleteAnswerRequest(generation=_request(**fields))
        response: rpc.CompleteAnswerResponse = await self.stub.CompleteAnswer(request, timeout=_PATIENCE_S)
        return response


def _request(**fields: Any) -> rpc.GenerateAnswerRequest:
    chunks = [chunk_pb2.ScoredChunk(chunk=_CHUNK, rank=1, score=1.0)]
    return rpc.GenerateAnswerRequest(**{"question": "When does the harbour open?", "chunks": chunks, **fields})


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """The service, and a caller with every scope."""
    trust = Trust.create(tmp_path)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(open_tgi_server())
        second = await stack.enter_async_context(open_tgi_server())
        hosts = [server.url.removeprefix("http://") for server in (first, second)]
        models = {
            "default": {"engine_url": f"tgi://{hosts[0]}", "fallbacks": ["spare"]},
            "spare": {"engine_url": f"openai://{hosts[1]}/v1"},
            "pool": {"engines": [{"urls": [f"tgi://{host}" for host in hosts]}]},
        }
        models_file = tmp_path / "models.yaml"
        models_file.write_text(yaml.safe_dump({"models": models}), "utf-8")
        settings = Settings(
            port=0, metrics_port=0, drain_s=0, token_public_key_file=trust.public_key_file, models_file=models_file
        )
        lifecycle = await stack.enter_async_context(running_service(settings, build))
        channel = await stack.enter_async_context(channel_to(lifecycle, trust))
        stack.enter_context(caller())
        yield Running(GeneratorServiceStub(channel), first, second)


def _detail(error: grpc.aio.AioRpcError, kind: Callable[[], Any]) -> Any:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # an AioRpcError has what it reads
    assert status is not None
    wanted = kind()
    assert any(detail.Unpack(wanted) for detail in status.details)
    return wanted


async def test_an_answer_by_a_schema_streams_and_is_cited_from_its_strings(running: Running) -> None:
    """Tokens come as they are made; a number in a list is no marker, one in a string is."""
    running.first.turn(grammar_answer=_VALID)
    *tokens, last = await running.stream(output_schema=_SCHEMA)
    assert "".join(event.token.text for event in tokens) == last.end.answer == _VALID
    assert [(one.marker, one.chunk_id) for one in last.end.citations] == [("[1]", "c1")]
    span = last.end.citations[0].answer_span
    assert _VALID[span.start : span.end] == "[1]"
    assert list(last.end.invalid_markers) == []
    assert running.first.last_body["parameters"]["grammar"]["value"] == json.loads(_SCHEMA)


async def test_a_stream_that_breaks_its_schema_ends_in_an_error(running: Running) -> None:
    """Tokens are out, so that nothing stands in: the error says why, and that asking again may help."""
    running.first.turn(grammar_answer=_INVALID)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await running.stream(output_schema=_SCHEMA)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "it breaks '#/required'" in (raised.value.details() or "")
    info = _detail(raised.value, error_details_pb2.ErrorInfo)
    assert (info.reason, info.metadata["resumable"]) == ("OUTPUT_INVALID", "true")
    assert info.metadata["released_chars"] == str(len(_INVALID))
    attempt = _detail(raised.value, generation_pb2.Attempt)
    assert (attempt.error_reason, attempt.finish_reason) == ("OUTPUT_INVALID", generation_pb2.FINISH_REASON_ERROR)
    assert attempt.usage.output_tokens == running.first.counts.output_tokens
    assert running.second.counts.generations == 0


async def test_a_whole_answer_that_breaks_its_schema_is_asked_of_the_next_engine(running: Running) -> None:
    """Nothing was released: the stand-in answers, and both attempts are told and billed."""
    running.first.turn(grammar_answer=_INVALID)
    running.second.turn(grammar_answer=_VALID)
    end = (await running.whole(output_schema=_SCHEMA)).end
    assert end.answer == _VALID
    assert [(a.model_alias, a.error_reason) for a in end.attempts] == [("default", "OUTPUT_INVALID"), ("spare", "")]
    assert [(d.rung, d.cause) for d in end.degradations] == [("fallback_model", "OUTPUT_INVALID")]
    counts = running.first.counts, running.second.counts
    assert end.usage.output_tokens == sum(count.output_tokens for count in counts)
    assert end.usage.input_tokens == sum(count.input_tokens for count in counts)


async def test_no_engine_that_satisfies_the_schema_is_an_error(running: Running) -> None:
    """The sentences of the chunks are no answer by a schema: the last resort is not asked."""
    running.first.turn(grammar_answer="The harbour opens at six.")
    running.second.turn(grammar_answer=_INVALID)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await running.whole(output_schema=_SCHEMA)
    assert _detail(raised.value, error_details_pb2.ErrorInfo).reason == "OUTPUT_INVALID"
    assert _detail(raised.value, generation_pb2.Attempt).model_alias == "default"


async def test_an_answer_cut_off_at_its_limit_says_so(running: Running) -> None:
    """Whoever granted too few tokens for the schema is told what to raise."""
    sampling = generation_pb2.Sampling(max_output_tokens=3)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await running.stream(output_schema=_SCHEMA, sampling=sampling)
    assert "max_output_tokens" in (raised.value.details() or "")


@pytest.mark.parametrize("fault", ["cut", "error", "garbage", "end_early"])
async def test_a_whole_answer_outlives_a_stream_that_breaks(running: Running, fault: str) -> None:
    """What was generated so far was told to nobody: the stand-in answers from the start."""
    running.first.turn(fault=fault, fault_after_tokens=3)
    end = (await running.whole()).end
    assert end.answer == running.second.dials.answer
    assert [attempt.model_alias for attempt in end.attempts] == ["default", "spare"]
    assert end.attempts[0].usage.output_tokens == 3


async def test_a_whole_answer_is_done_over_by_another_replica(running: Running) -> None:
    """Another server of the same model is as good, and no degradation."""
    for broken, well in ((running.first, running.second), (running.second, running.first)):
        broken.turn(fault="cut", fault_after_tokens=2)
        well.turn(fault="none")
        ends = [(await running.whole(model="pool", request_id=f"r{number}")).end for number in range(6)]
        assert {end.answer for end in ends} == {well.dials.answer}
        assert {len(end.degradations) for end in ends} == {0}


async def test_a_whole_answer_ends_with_the_deadline(running: Running) -> None:
    """A stream that stalls is not done over for ever."""
    running.first.turn(fault="stall", fault_after_tokens=2)
    running.second.turn(fault="stall", fault_after_tokens=2)
    request = rpc.CompleteAnswerRequest(generation=_request())
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await running.stub.CompleteAnswer(request, timeout=0.6)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(running.first.idle(), _PATIENCE_S)


@pytest.mark.parametrize("model", ["default", "spare"])
async def test_probabilities_are_told_when_asked_for(running: Running, model: str) -> None:
    """Each token has its own, the one that ends the answer too; the end has their mean, which gives the perplexity."""
    *tokens, last = await running.stream(model=model, logprobs=True)
    logprobs = [one for event in tokens for one in event.token.logprobs]
    assert "".join(one.text for one in logprobs).removesuffix("</s>") == last.end.answer
    assert all(one.logprob <= 0 for one in logprobs)
    assert last.end.mean_logprob == pytest.approx(sum(one.logprob for one in logprobs) / len(logprobs))
    whole = await running.whole(model=model, logprobs=True)
    assert list(whole.logprobs) == logprobs
    assert whole.end.mean_logprob == last.end.mean_logprob


async def test_probabilities_are_absent_unless_asked_for(running: Running) -> None:
    """Nobody takes a missing mean for a certain answer."""
    *tokens, last = await running.stream()
    assert not any(event.token.logprobs for event in tokens)
    assert not last.end.HasField("mean_logprob")
    assert not (await running.whole()).end.HasField("mean_logprob")


async def test_the_settings_in_force_are_told(running: Running) -> None:
    """Those of the caller, and the route's where it gave none."""
    sampling = generation_pb2.Sampling(temperature=0.5, seed=7, stop=["END"])
    told = (await running.whole(sampling=sampling)).end.sampling
    assert (told.temperature, told.seed, list(told.stop), told.max_output_tokens) == (0.5, 7, ["END"], 512)
    assert not told.HasField("top_p")


async def test_an_adapter_is_asked_for_and_told(running: Running) -> None:
    """The engine gets its name, the attempt keeps it."""
    running.first.turn(adapters="legal")
    end = (await running.whole(adapter="legal")).end
    assert end.attempts[0].adapter == "legal"
    assert running.first.last_body["parameters"]["adapter_id"] == "legal"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"output_schema": "[]"}, "output_schema"),
        ({"output_schema": '{"type": "text"}'}, "output_schema"),
        ({"output_schema": '{"$ref": "https://example.com/"}'}, "output_schema"),
        ({"adapter": "x" * 129}, "adapter"),
        ({"adapter": "a\nb"}, "adapter"),
        ({"question": ""}, "question"),
    ],
)
async def test_bad_fields_are_named_as_the_caller_knows_them(
    running: Running, fields: dict[str, Any], field: str
) -> None:
    """Streamed and whole alike, before any engine is asked."""
    for ask, name in ((running.stream, field), (running.whole, f"generation.{field}")):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await ask(**fields)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        violations = _detail(raised.value, error_details_pb2.BadRequest).field_violations
        assert [violation.field for violation in violations] == [name]
    assert running.first.counts.generations == 0


async def test_a_whole_answer_needs_a_question(running: Running) -> None:
    """An empty request is refused by name."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await running.stub.CompleteAnswer(rpc.CompleteAnswerRequest(), timeout=_PATIENCE_S)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    violations = _detail(raised.value, error_details_pb2.BadRequest).field_violations
    assert [violation.field for violation in violations] == ["generation"]


async def test_replicas_are_listed(running: Running) -> None:
    """Each server behind an alias, with what is known of it."""
    await running.whole(model="pool")
    models = {m.alias: m for m in (await running.stub.ListModels(rpc.ListModelsRequest(), timeout=5)).models}
    replicas = models["pool"].replicas
    assert {replica.address for replica in replicas} == {
        f"tgi://{server.url.removeprefix('http://')}" for server in (running.first, running.second)
    }
    assert {replica.state for replica in replicas} == {rpc.REPLICA_STATE_HEALTHY}
    assert {replica.outstanding_tokens for replica in replicas} == {0}


async def test_without_the_scope_nothing_is_completed(running: Running) -> None:
    """The scope `generate` is needed."""
    with caller(scopes=("search",)), pytest.raises(grpc.aio.AioRpcError) as raised:
        await running.whole()
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
