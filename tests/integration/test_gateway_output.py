"""Answers by a JSON schema, and how sure the model was of them, through both doors of the gateway."""

import json
from pathlib import Path
from typing import Any

import grpc
import openai
import pytest
from google.rpc import error_details_pb2

from binnacle.events.v1 import interaction_completed_pb2 as event_pb
from binnacle.gateway.v1 import gateway_service_pb2 as pb
from binnacle.type.v1 import generation_pb2
from servicekit.domain.output_schema import read_output_schema
from servicekit.errors import BackendUnavailable, InvalidRequest
from servicekit.rpc.status import details_of, to_failure
from tests.integration.gateway_stack import REDACTED, SECRET, Backends, RunningGateway, running_gateway

_SCHEMA = '{"type": "object", "properties": {"mail": {"type": "string"}}, "required": ["mail"]}'
_WITH_AT = '{"type": "object", "properties": {"mail": {"type": "string", "pattern": "@"}}}'
_ANSWER = f'{{"mail": "{SECRET} [1]"}}'
_TOKENS = ('{"ma', 'il": "', SECRET, ' [1]"}')
_MESSAGES: Any = [{"role": "user", "content": "Whom to ask?"}]


async def _ask(gateway: RunningGateway, **fields: Any) -> pb.Answer:
    request = pb.AnswerQuestionRequest(question=pb.Question(text="Whom to ask?", **fields))
    answer: pb.Answer = (await gateway.stub.AnswerQuestion(request, metadata=gateway.auth(), timeout=10)).answer
    return answer


def _client(gateway: RunningGateway) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=gateway.http_url, api_key=gateway.api_key, max_retries=0, timeout=10)


async def test_an_answer_by_a_schema_comes_whole_and_redacted(tmp_path: Path) -> None:
    """One token, judged as a whole; a redaction within a text leaves JSON, and its citation is found again."""
    async with running_gateway(tmp_path, Backends(tokens=_TOKENS)) as gateway:
        request = pb.StreamAnswerRequest(question=pb.Question(text="Whom to ask?", output_schema=_SCHEMA))
        events = [event async for event in gateway.stub.StreamAnswer(request, metadata=gateway.auth(), timeout=10)]
        told = [event.token.text for event in events if event.WhichOneof("event") == "token"]
        answer = events[-1].completed.answer
        assert told == [answer.text] == [f'{{"mail": "{REDACTED} [1]"}}']
        span = answer.citations[0].answer_span
        assert answer.text[span.start : span.end] == "[1]"
        (generation,) = gateway.backends.requests("CompleteAnswer")
        assert generation.generation.output_schema == _SCHEMA
        assert "".join(gateway.backends.judged) == _ANSWER


async def test_what_a_generation_tells_is_recorded(tmp_path: Path) -> None:
    """The schema's hash, how sure the model was, stray markers, settings in force, and why this replica."""
    async with running_gateway(tmp_path, Backends(tokens=('{"mail": "x"}',))) as gateway:
        answer = await _ask(gateway, output_schema=_SCHEMA, logprobs=True)
        assert answer.mean_logprob == -0.25
        (record,) = gateway.interactions()
        assert record.output_schema_hash == read_output_schema(_SCHEMA).hash
        assert record.mean_logprob == -0.25
        assert list(record.invalid_markers) == ["[9]"]
        assert record.sampling.max_output_tokens == 512
        assert [(attempt.choice, attempt.queue_us) for attempt in record.attempts] == [("affinity", 1500)]


async def test_without_probabilities_there_is_no_mean(tmp_path: Path) -> None:
    """Absent, in the answer and in the record, rather than 0, which would say: certain."""
    async with running_gateway(tmp_path, Backends(tokens=('{"mail": "x"}',))) as gateway:
        answer = await _ask(gateway, output_schema=_SCHEMA)
        (record,) = gateway.interactions()
        assert not answer.HasField("mean_logprob")
        assert not record.HasField("mean_logprob")


async def test_a_redaction_that_breaks_the_schema_blocks_the_answer(tmp_path: Path) -> None:
    """A product that parses gets no JSON that lies about its schema; the reason is told and recorded."""
    async with running_gateway(tmp_path, Backends(tokens=_TOKENS)) as gateway:
        answer = await _ask(gateway, output_schema=_WITH_AT)
        assert answer.outcome == pb.OUTCOME_BLOCKED
        assert [(one.rung, one.cause) for one in answer.degradations] == [("blocked_answer", "REDACTION_BROKE_SCHEMA")]
        assert "{" not in answer.text
        (record,) = gateway.interactions()
        assert record.outcome == event_pb.INTERACTION_OUTCOME_BLOCKED
        assert SECRET not in str(record)


async def test_no_engine_that_keeps_the_schema_is_an_honest_refusal(tmp_path: Path) -> None:
    """The cause says that it was the output, not that the generator is away; the tries are recorded."""

    class _Broken(Backends):
        async def CompleteAnswer(self, request: Any, context: Any) -> Any:  # noqa: N802  # the proto names it
            error = BackendUnavailable("engine e gave an answer that breaks it", reason="OUTPUT_INVALID")
            error.details = (generation_pb2.Attempt(number=1, error_reason="OUTPUT_INVALID"),)
            failure = to_failure(error, service="generator", request_id="")
            await context.abort(failure.code, failure.message, failure.trailers)

    async with running_gateway(tmp_path, _Broken()) as gateway:
        answer = await _ask(gateway, output_schema=_SCHEMA)
        assert answer.outcome == pb.OUTCOME_REFUSED
        assert [(one.rung, one.cause) for one in answer.degradations] == [("honest_refusal", "OUTPUT_INVALID")]
        assert [attempt.error_reason for attempt in gateway.interactions()[0].attempts] == ["OUTPUT_INVALID"]


async def test_an_engine_without_schemas_is_told_by_the_questions_field(tmp_path: Path) -> None:
    """What the generator calls `generation.output_schema` is the caller's `question.output_schema`."""

    class _Plain(Backends):
        async def CompleteAnswer(self, request: Any, context: Any) -> Any:  # noqa: N802  # the proto names it
            error = InvalidRequest("this model's engine has no schemas", field="generation.output_schema")
            failure = to_failure(error, service="generator", request_id="")
            await context.abort(failure.code, failure.message, failure.trailers)

    async with running_gateway(tmp_path, _Plain()) as gateway, _client(gateway) as client:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await _ask(gateway, output_schema=_SCHEMA)
        (violations,) = details_of(raised.value, error_details_pb2.BadRequest)
        assert [violation.field for violation in violations.field_violations] == ["question.output_schema"]
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(
                model="default", messages=_MESSAGES, response_format={"type": "json_object"}
            )
        assert refused.value.param == "response_format"


async def test_a_bad_schema_is_no_accepted_request(tmp_path: Path) -> None:
    """It is refused by name before anything is asked, searched or recorded."""
    async with running_gateway(tmp_path) as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await _ask(gateway, output_schema='{"type": "text"}')
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (raised.value.details() or "").startswith("question.output_schema is no JSON schema")
        assert gateway.interactions() == []
        assert gateway.backends.calls == []


async def test_the_schema_is_part_of_the_question(tmp_path: Path) -> None:
    """A repeat under the same key has the recorded answer; another schema makes it another question."""
    async with running_gateway(tmp_path, Backends(tokens=('{"mail": "x"}',))) as gateway:
        first = await _ask(gateway, output_schema=_SCHEMA, idempotency_key="k", logprobs=True)
        again = await _ask(gateway, output_schema=_SCHEMA, idempotency_key="k", logprobs=True)
        assert (again.request_id, again.replayed, again.mean_logprob) == (first.request_id, True, -0.25)
        with pytest.raises(grpc.aio.AioRpcError, match="used for another question"):
            await _ask(gateway, output_schema=_WITH_AT, idempotency_key="k", logprobs=True)


@pytest.mark.parametrize(
    ("response_format", "schema"),
    [
        ({"type": "json_schema", "json_schema": {"name": "mail", "schema": json.loads(_SCHEMA)}}, _SCHEMA),
        ({"type": "json_object"}, '{"type": "object"}'),
    ],
)
async def test_a_response_format_is_a_schema(tmp_path: Path, response_format: Any, schema: str) -> None:
    """OpenAI's way of asking for JSON leads to the same answer; the mean probability stands in the extra field."""
    async with running_gateway(tmp_path, Backends(tokens=('{"mail": "x"}',))) as gateway, _client(gateway) as client:
        completion = await client.chat.completions.create(
            model="default",
            messages=_MESSAGES,
            response_format=response_format,
            extra_body={"binnacle": {"logprobs": True}},
        )
        assert completion.choices[0].message.content == '{"mail": "x"}'
        (generation,) = gateway.backends.requests("CompleteAnswer")
        assert generation.generation.output_schema == schema
        assert completion.model_extra is not None
        assert completion.model_extra["binnacle"]["mean_logprob"] == -0.25


async def test_a_response_format_streams_in_one_piece(tmp_path: Path) -> None:
    """The chunks join to the JSON."""
    async with running_gateway(tmp_path, Backends(tokens=('{"mail": "x"}',))) as gateway, _client(gateway) as client:
        stream = await client.chat.completions.create(
            model="default", messages=_MESSAGES, stream=True, response_format={"type": "json_object"}
        )
        texts = [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]
        assert [text for text in texts if text] == ['{"mail": "x"}']


async def test_the_text_format_is_free_text(tmp_path: Path) -> None:
    """The default, said aloud, changes nothing."""
    async with running_gateway(tmp_path) as gateway, _client(gateway) as client:
        await client.chat.completions.create(model="default", messages=_MESSAGES, response_format={"type": "text"})
        (generation,) = gateway.backends.requests("GenerateAnswer")
        assert generation.output_schema == ""


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "text"}}}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"binnacle": {"logprobs": "yes"}}, "binnacle.logprobs"),
    ],
)
async def test_formats_that_cannot_be_kept_are_refused(tmp_path: Path, fields: Any, parameter: str) -> None:
    """By parameter, with what to say instead."""
    async with running_gateway(tmp_path) as gateway, _client(gateway) as client:
        with pytest.raises(openai.BadRequestError) as raised:
            await client.chat.completions.create(model="default", messages=_MESSAGES, extra_body=fields)
        assert raised.value.param == parameter
        assert gateway.interactions() == []
