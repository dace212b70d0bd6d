"""The OpenAI-compatible engine keeps the contract of its port, against the contract server's chat route."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from servicekit.adapters.registry import open_engine
from servicekit.domain.prompt import Sampling
from servicekit.errors import InvalidRequest, NotReady
from servicekit.ports.engine import Engine
from servicekit.testing.conformance.engine import collect, end_of, harbour_request
from servicekit.testing.conformance.engine_faults import EngineFaultConformance
from servicekit.testing.conformance.engine_remote import RemoteEngineConformance
from servicekit.testing.tgi_server.server import TgiServer, open_tgi_server


@pytest.fixture
async def server() -> AsyncIterator[TgiServer]:
    """A contract server."""
    async with open_tgi_server() as running:
        yield running


@pytest.fixture
async def engine(server: TgiServer) -> AsyncIterator[Engine]:
    """An engine on the contract server's OpenAI-compatible routes."""
    async with open_engine(f"{server.url.replace('http', 'openai')}/v1") as opened:
        yield opened


@pytest.fixture
async def lost_engine() -> AsyncIterator[Engine]:
    """An engine on a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        async with open_engine(f"openai://127.0.0.1:{probe.getsockname()[1]}/v1") as opened:
            yield opened


class TestOpenAIEngine(RemoteEngineConformance, EngineFaultConformance):
    """All of the port's contract."""


async def test_settings_are_sent_under_openais_names(server: TgiServer) -> None:
    """Sampling reaches the server; what is not set is not sent."""
    url = f"{server.url.replace('http', 'openai')}/v1?model=contract/tgi&limit_field=max_completion_tokens"
    async with open_engine(url, api_key="ours") as engine:
        await collect(engine, harbour_request(Sampling(temperature=0.5, top_k=7, max_output_tokens=9, seed=3)))
    body = server.last_body
    sent = {name: body[name] for name in ("temperature", "top_k", "max_completion_tokens", "seed", "model")}
    assert sent == {
        "temperature": 0.5,
        "top_k": 7,
        "max_completion_tokens": 9,
        "seed": 3,
        "model": "contract/tgi",
    }
    assert "top_p" not in body
    assert server.last_headers["authorization"] == "Bearer ours"


async def test_usage_is_estimated_where_none_is_reported(server: TgiServer, engine: Engine) -> None:
    """A server that ignores `include_usage` still gives a usage, marked as an estimate."""
    server.turn(report_usage=False)
    usage = end_of(await collect(engine, harbour_request())).usage
    assert usage.estimated
    assert usage.input_tokens > 0
    assert usage.output_tokens > 0


async def test_window_comes_from_the_url(server: TgiServer) -> None:
    """A window given in the URL is the model's."""
    async with open_engine(f"{server.url.replace('http', 'openai')}/v1?window=1000") as engine:
        info = await engine.info()
    assert (info.max_input_tokens, info.max_total_tokens) == (999, 1000)


async def test_unlisted_model_is_not_ready(server: TgiServer) -> None:
    """A model that the server does not list is told by name."""
    async with open_engine(f"{server.url.replace('http', 'openai')}/v1?model=other") as engine:
        with pytest.raises(NotReady, match="other"):
            await engine.info()


@pytest.mark.parametrize(
    "query", ["window=0", "window=x", "limit_field=tokens", "colour=red", "schema=xml", "usage=often", "template=/a"]
)
async def test_bad_options_are_refused(query: str) -> None:
    """Options out of their bounds are refused when the engine is opened."""
    with pytest.raises(InvalidRequest):
        async with open_engine(f"openai://127.0.0.1:1/v1?{query}"):
            pass


_SCHEMA: dict[str, object] = {"type": "object", "properties": {"open": {"type": "boolean"}}}


@pytest.mark.parametrize(
    ("form", "name", "sent"),
    [
        (
            "json_schema",
            "response_format",
            {"type": "json_schema", "json_schema": {"name": "answer", "schema": _SCHEMA, "strict": True}},
        ),
        ("json_object", "response_format", {"type": "json_object", "schema": _SCHEMA}),
        ("guided_json", "guided_json", _SCHEMA),
        ("tgi", "response_format", {"type": "json", "value": _SCHEMA}),
    ],
)
async def test_schema_is_sent_as_the_server_takes_it(server: TgiServer, form: str, name: str, sent: object) -> None:
    """The URL says how; OpenAI's way is the usual one."""
    async with open_engine(f"{server.url.replace('http', 'openai')}/v1?schema={form}") as engine:
        await asyncio.gather(
            collect(engine, replace(harbour_request(), output_schema=json.dumps(_SCHEMA))), return_exceptions=True
        )
    assert server.last_body[name] == sent


async def test_schema_is_refused_where_the_server_takes_none(server: TgiServer) -> None:
    """By its field, before anything is sent."""
    async with open_engine(f"{server.url.replace('http', 'openai')}/v1?schema=none") as engine:
        with pytest.raises(InvalidRequest) as raised:
            await collect(engine, replace(harbour_request(), output_schema="{}"))
    assert raised.value.field == "output_schema"
    assert server.counts.generations == 0


@pytest.mark.parametrize(
    ("usage", "sent"),
    [
        ("end", {"include_usage": True}),
        ("continuous", {"include_usage": True, "continuous_usage_stats": True}),
        ("none", None),
    ],
)
async def test_usage_is_asked_for_as_the_url_says(server: TgiServer, usage: str, sent: dict[str, bool] | None) -> None:
    """At the end, with every chunk, or not at all where a server refuses the question."""
    async with open_engine(f"{server.url.replace('http', 'openai')}/v1?usage={usage}") as engine:
        await collect(engine, harbour_request())
    assert server.last_body.get("stream_options") == sent
