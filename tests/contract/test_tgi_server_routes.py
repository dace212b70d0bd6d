"""The contract server's routes take TGI's parameters and answer in TGI's shapes, with meaning where it matters."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import jsonschema
import pytest

from servicekit.testing.tgi_server.parameters import Grammar
from servicekit.testing.tgi_server.refusals import Refusal
from servicekit.testing.tgi_server.schema_instance import instance_of
from servicekit.testing.tgi_server.server import TgiServer, open_tgi_server

_USER = [{"role": "user", "content": "one two"}]


@pytest.fixture
async def server() -> AsyncIterator[TgiServer]:
    """A contract server."""
    async with open_tgi_server() as running:
        yield running


@pytest.fixture
async def http(server: TgiServer) -> AsyncIterator[httpx2.AsyncClient]:
    """A plain HTTP client on it."""
    async with httpx2.AsyncClient(base_url=server.url, trust_env=False) as client:
        yield client


def _frames(body: str) -> list[dict[str, Any]]:
    return [json.loads(line[5:]) for line in body.splitlines() if line and "[DONE]" not in line]


async def _generate(http: httpx2.AsyncClient, **parameters: Any) -> httpx2.Response:
    return await http.post("/generate", json={"inputs": "one two", "parameters": parameters})


async def test_details_come_only_when_asked(http: httpx2.AsyncClient) -> None:
    """Tokens with their probabilities, and those of the prompt, are details; the whole text is the prompt's too."""
    assert (await _generate(http)).json().keys() == {"generated_text"}
    body = (await _generate(http, details=True, decoder_input_details=True, return_full_text=True)).json()
    assert body["generated_text"].startswith("one two")
    assert [token["text"] for token in body["details"]["prefill"]] == ["one", " two"]
    assert body["details"]["prefill"][0]["logprob"] is None
    tokens = body["details"]["tokens"]
    assert len(tokens) == body["details"]["generated_tokens"]
    assert all(-4 < token["logprob"] < 0 for token in tokens)
    assert tokens[-1]["special"] is True
    assert body["details"]["seed"] is None


async def test_top_tokens_begin_with_the_token_itself(http: httpx2.AsyncClient) -> None:
    """Alternatives are each less likely than the one before, in a stream too."""
    body = (await _generate(http, details=True, top_n_tokens=3)).json()
    for token, alternatives in zip(body["details"]["tokens"], body["details"]["top_tokens"], strict=True):
        assert alternatives[0] == token
        logprobs = [one["logprob"] for one in alternatives]
        assert logprobs == sorted(logprobs, reverse=True)
        assert len(logprobs) == 3
    streamed = await http.post("/generate_stream", json={"inputs": "x", "parameters": {"top_n_tokens": 2}})
    assert all(len(frame["top_tokens"]) == 2 for frame in _frames(streamed.text))


async def test_best_of_generates_several(http: httpx2.AsyncClient, server: TgiServer) -> None:
    """The best is told first and the others as sequences; it needs sampling, no seed, and no stream."""
    body = (await _generate(http, best_of=2, do_sample=True, details=True)).json()
    assert len(body["details"]["best_of_sequences"]) == 1
    assert server.counts.generations == 2
    for parameters, told in (
        ({"best_of": 2}, "you must use sampling when `best_of` is > 1"),
        ({"best_of": 3, "do_sample": True}, "`best_of` must be > 0 and <= 2. Given: 3"),
        ({"best_of": 2, "do_sample": True, "seed": 1}, "`seed` must not be set when `best_of` > 1"),
    ):
        refused = await _generate(http, **parameters)
        assert refused.json() == {"error": f"Input validation error: {told}", "error_type": "validation"}
    sent = {"inputs": "x", "parameters": {"best_of": 2, "do_sample": True}}
    (frame,) = _frames((await http.post("/generate_stream", json=sent)).text)
    assert "not supported when streaming" in frame["error"]


@pytest.mark.parametrize(
    "parameters",
    [{"temperature": "hot"}, {"max_new_tokens": -1}, {"do_sample": 1}, {"stop": "x"}, {"grammar": "x"}, {"seed": -1}],
)
@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
async def test_wrong_types_are_plain_text(http: httpx2.AsyncClient, path: str, parameters: dict[str, Any]) -> None:
    """JSON of the wrong shape is 422 before the route begins, so no stream tells it."""
    response = await http.post(path, json={"inputs": "x", "parameters": parameters})
    assert response.status_code == 422
    assert response.text.startswith("Failed to deserialize the JSON body into the target type")


async def test_headers_tell_tokens_and_times(http: httpx2.AsyncClient, server: TgiServer) -> None:
    """The whole answer has every header, and the times are what the dials made them."""
    server.turn(tokens_per_s=100, first_token_s=0.1)
    headers = (await _generate(http)).headers
    assert (headers["x-prompt-tokens"], headers["x-generated-tokens"]) == ("2", "13")
    assert headers["x-compute-characters"] == "7"
    assert int(headers["x-total-time"]) >= 220
    assert int(headers["x-inference-time"]) <= int(headers["x-total-time"])
    assert float(headers["x-compute-time"]) >= 0.22
    for name in ("x-compute-type", "x-validation-time", "x-queue-time", "x-time-per-token"):
        assert name in headers


async def test_same_seed_same_answer(http: httpx2.AsyncClient, server: TgiServer) -> None:
    """A sampled answer depends on its seed alone, and a greedy one on nothing."""
    server.turn(vary_answers=True)
    answers = [(await _generate(http, do_sample=True, seed=seed)).json()["generated_text"] for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]
    greedy = [(await _generate(http, seed=seed)).json()["generated_text"] for seed in (1, 2)]
    assert greedy == [server.dials.answer] * 2


async def test_adapters_are_used_when_loaded(http: httpx2.AsyncClient, server: TgiServer) -> None:
    """A loaded adapter is counted; an unknown one is the base model's, or refused where the dial says so."""
    server.turn(adapters="legal, medical")
    await _generate(http, adapter_id="legal")
    await http.post("/v1/chat/completions", json={"model": "medical", "messages": _USER})
    await _generate(http, adapter_id="other")
    assert [one.adapter for one in server.generations()] == ["legal", "medical", ""]
    server.turn(refuse_unknown_adapter=True)
    refused = await _generate(http, adapter_id="other")
    assert refused.status_code == 422
    assert "`other` is not loaded; loaded adapters: legal, medical" in refused.json()["error"]


_SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 8},
        "age": {"type": "integer", "minimum": 18, "maximum": 19},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2},
        "child": {"anyOf": [{"$ref": "#/$defs/person"}, {"type": "null"}]},
        "code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]+$"},
        "when": {"type": "string", "format": "date"},
        "ratio": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    },
    "required": ["name", "age", "extra"],
    "$defs": {"person": {"type": "object", "properties": {"child": {"$ref": "#/$defs/person"}}}},
}


@pytest.mark.parametrize("kind", ["json", "json_schema", "text"])
async def test_a_grammar_is_kept(http: httpx2.AsyncClient, kind: str) -> None:
    """The answer is a valid instance of the schema, however it is said."""
    value: Any = {"json": _SCHEMA, "json_schema": {"name": "x", "schema": _SCHEMA}, "text": json.dumps(_SCHEMA)}[kind]
    grammar = {"type": "json" if kind == "text" else kind, "value": value}
    answer = (await _generate(http, grammar=grammar, max_new_tokens=500)).json()["generated_text"]
    jsonschema.validate(json.loads(answer), _SCHEMA)
    assert json.loads(answer)["child"]["child"]


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": _SCHEMA}},
        {"type": "json_schema", "value": {"name": "x", "schema": _SCHEMA}},
        {"type": "json_object", "value": _SCHEMA},
    ],
)
async def test_a_response_format_is_kept(http: httpx2.AsyncClient, response_format: dict[str, Any]) -> None:
    """The chat route keeps a schema by OpenAI's words and by TGI's."""
    body = {"messages": _USER, "response_format": response_format}
    answer = (await http.post("/v1/chat/completions", json=body)).json()["choices"][0]["message"]["content"]
    jsonschema.validate(json.loads(answer), _SCHEMA)


async def test_a_grammar_may_be_broken_on_purpose(http: httpx2.AsyncClient, server: TgiServer) -> None:
    """A dial answers something else, and a limit cuts the instance off."""
    server.turn(grammar_answer='{"name": 3')
    grammar = {"type": "json", "value": _SCHEMA}
    assert (await _generate(http, grammar=grammar)).json()["generated_text"] == '{"name": 3'
    server.turn(grammar_answer="")
    cut = (await _generate(http, grammar=grammar, max_new_tokens=3)).json()["generated_text"]
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        json.loads(cut)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"type": "object"}, "grammar is not valid: Grammar must have a 'properties' field"),
        ({"type": 3, "properties": {}}, "grammar is not valid"),
        ("{", "grammar is not valid"),
        (3, "grammar is not supported"),
        ({"properties": {"x": {"type": "string", "not": {}}}}, "cannot compile regex from schema"),
    ],
)
def test_bad_schemas_are_refused(value: object, told: str) -> None:
    """What is no schema, or cannot be kept, is a failed validation."""
    with pytest.raises(Refusal, match=told):
        instance_of(Grammar(schema=value))


@pytest.mark.parametrize("pattern", ["[a-f0-9]{8}", "(yes|no)", r"\d+\.\d+", "a*b+", "^x?$"])
def test_regular_expressions_are_kept(pattern: str) -> None:
    """The answer matches from its beginning to its end."""
    assert re.fullmatch(pattern, instance_of(Grammar(regex=pattern)))


async def test_chat_logprobs_are_openais(http: httpx2.AsyncClient) -> None:
    """Each token with its probability and its alternatives, streamed or not."""
    body = {"messages": _USER, "logprobs": True, "top_logprobs": 2}
    whole = (await http.post("/v1/chat/completions", json=body)).json()["choices"][0]["logprobs"]["content"]
    chunks = _frames((await http.post("/v1/chat/completions", json={**body, "stream": True})).text)
    streamed = [chunk["choices"][0]["logprobs"]["content"][0] for chunk in chunks]
    assert whole == streamed
    assert all(len(one["top_logprobs"]) == 2 and one["logprob"] < 0 for one in whole)


async def test_tools_are_left_out(http: httpx2.AsyncClient) -> None:
    """A chat with tools is 422, in TGI's words where it refuses too."""
    body = {"messages": _USER, "tools": [{"type": "function", "function": {"name": "f"}}]}
    refused = await http.post("/v1/chat/completions", json=body)
    assert (refused.status_code, refused.json()["error_type"]) == (422, "tool_error")
    body["response_format"] = {"type": "json_object", "value": _SCHEMA}
    refused = await http.post("/v1/chat/completions", json=body)
    assert refused.json()["error"] == "Tool error: Grammar and tools are mutually exclusive"


async def test_completions_answer_every_prompt(http: httpx2.AsyncClient) -> None:
    """Prompts are answered by index, their usage summed; five are one too many."""
    whole = (await http.post("/v1/completions", json={"prompt": ["a b", "c"], "max_tokens": 4})).json()
    assert [(one["index"], one["finish_reason"]) for one in whole["choices"]] == [(0, "length"), (1, "length")]
    assert (whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"]) == (3, 8)
    streamed = (await http.post("/v1/completions", json={"prompt": ["a b", "c"], "max_tokens": 4, "stream": True})).text
    chunks = _frames(streamed)
    for choice in whole["choices"]:
        parts = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == choice["index"]]
        assert "".join(part["text"] for part in parts) == choice["text"]
    assert streamed.endswith("data: [DONE]\n\n")
    assert sum(chunk["usage"]["completion_tokens"] for chunk in chunks if "usage" in chunk) == 8
    many = await http.post("/v1/completions", json={"prompt": ["x"] * 5})
    assert (many.status_code, many.json()["error_type"]) == (422, "batch size exceeded")


async def test_chat_tokens_are_those_that_are_read(http: httpx2.AsyncClient) -> None:
    """`/chat_tokenize` counts what a chat's usage says."""
    tokens = (await http.post("/chat_tokenize", json={"messages": _USER})).json()
    usage = (await http.post("/v1/chat/completions", json={"messages": _USER})).json()["usage"]
    assert len(tokens["tokenize_response"]) == usage["prompt_tokens"]
    assert "".join(token["text"] for token in tokens["tokenize_response"]) == tokens["templated_text"]


async def test_truncation_keeps_the_end(http: httpx2.AsyncClient, server: TgiServer) -> None:
    """A truncated prompt counts what is left of it, and fits where it did not."""
    server.turn(max_input_tokens=4)
    assert (await http.post("/generate", json={"inputs": "a b c d e f"})).status_code == 422
    body = {"inputs": "a b c d e f", "parameters": {"truncate": 2}}
    assert (await http.post("/generate", json=body)).headers["x-prompt-tokens"] == "2"
