"""The TGI engine keeps the contract of its port, and TGI's own rules."""

import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from servicekit.adapters.registry import open_engine
from servicekit.domain.prompt import Sampling
from servicekit.errors import InvalidRequest, NotReady, Overloaded
from servicekit.ports.engine import Engine
from servicekit.testing.conformance.engine import collect, end_of, harbour_request, text_of
from servicekit.testing.conformance.engine_faults import EngineFaultConformance
from servicekit.testing.conformance.engine_remote import RemoteEngineConformance
from servicekit.testing.tgi_server.server import TgiServer, open_tgi_server


@pytest.fixture
async def server() -> AsyncIterator[TgiServer]:
    """A contract server."""
    async with open_tgi_server() as running:
        yield running


@pytest.fixture(params=["", "?template=chatml", "?template=engine"], ids=["plain", "chatml", "engine"])
def query(request: pytest.FixtureRequest) -> str:
    """TGI's own route with either format, and its chat route."""
    return str(request.param)


@pytest.fixture
async def engine(server: TgiServer, query: str) -> AsyncIterator[Engine]:
    """An engine on the contract server."""
    async with open_engine(server.url.replace("http", "tgi") + query) as opened:
        yield opened


@pytest.fixture
async def plain_engine(server: TgiServer) -> AsyncIterator[Engine]:
    """An engine on the contract server's own route."""
    async with open_engine(server.url.replace("http", "tgi")) as opened:
        yield opened


@pytest.fixture
async def lost_engine() -> AsyncIterator[Engine]:
    """An engine on a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        async with open_engine(f"tgi://127.0.0.1:{probe.getsockname()[1]}") as opened:
            yield opened


class TestTgiEngine(RemoteEngineConformance, EngineFaultConformance):
    """All of the port's contract."""


async def test_streams_from_the_stream_route(plain_engine: Engine, server: TgiServer) -> None:
    """Prompts go to TGI's own route for streams."""
    await collect(plain_engine, harbour_request())
    assert server.last_path == "/generate_stream"


@pytest.mark.parametrize(
    ("sampling", "sent"),
    [
        (Sampling(temperature=0, top_p=0.9, top_k=40), {"do_sample": False}),
        (Sampling(temperature=0.7, top_p=1.0), {"do_sample": True, "temperature": 0.7}),
        (
            Sampling(temperature=0.7, top_p=0.5, top_k=3),
            {"do_sample": True, "temperature": 0.7, "top_p": 0.5, "top_k": 3},
        ),
    ],
)
async def test_greedy_sends_no_sampling_settings(
    plain_engine: Engine, server: TgiServer, sampling: Sampling, sent: dict[str, object]
) -> None:
    """A temperature of 0 is said as TGI says it, so that it neither refuses nor samples."""
    assert text_of(await collect(plain_engine, harbour_request(sampling)))
    parameters = server.last_body["parameters"]
    names = ("do_sample", "temperature", "top_p", "top_k")
    assert {name: parameters[name] for name in names if parameters.get(name) is not None} == sent


async def test_presence_penalty_is_refused_by_name(plain_engine: Engine, server: TgiServer) -> None:
    """A setting the engine cannot honour is refused, not dropped."""
    with pytest.raises(InvalidRequest) as raised:
        await collect(plain_engine, harbour_request(Sampling(presence_penalty=1)))
    assert raised.value.field == "sampling.presence_penalty"
    assert server.counts.requests == 0


async def test_too_many_requests_is_overloaded(plain_engine: Engine, server: TgiServer) -> None:
    """A node at its limit of concurrent requests is overloaded."""
    server.turn(max_concurrent_requests=0)
    with pytest.raises(Overloaded):
        await collect(plain_engine, harbour_request())


async def test_prompt_past_the_window_is_refused(plain_engine: Engine, server: TgiServer) -> None:
    """What TGI finds too long is an invalid request that says why."""
    server.turn(max_input_tokens=5)
    with pytest.raises(InvalidRequest, match="less than 5 tokens"):
        await collect(plain_engine, harbour_request())


async def test_machine_token_is_not_sent(
    server: TgiServer, plain_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Hugging Face token of the machine stays on it; a key of ours is sent."""
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_machine")
    await collect(plain_engine, harbour_request())
    assert "authorization" not in server.last_headers
    async with open_engine(server.url.replace("http", "tgi"), api_key="ours") as keyed:
        await collect(keyed, harbour_request())
    assert server.last_headers["authorization"] == "Bearer ours"


@pytest.mark.parametrize("url", ["tgi://", "tgi://u:p@h:1", "tgi://h:1?colour=red", "tgi://h:1?template=x"])
async def test_bad_urls_are_refused(url: str) -> None:
    """A URL without a host, with credentials or with unknown options is refused."""
    with pytest.raises(InvalidRequest):
        async with open_engine(url):
            pass


async def test_own_template_is_what_is_sent_and_counted(server: TgiServer, tmp_path: Path) -> None:
    """A model's own format is written here; its first token is left to a node that puts it before any prompt."""
    path = tmp_path / "tokenizer_config.json"
    template = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}[assistant]"
    path.write_text(json.dumps({"chat_template": template, "bos_token": "<s>"}))
    async with open_engine(f"{server.url.replace('http', 'tgi')}?template={path}") as engine:
        request = harbour_request(question="When?")
        count = await engine.count_messages(request.messages)
        events = await collect(engine, request)
    assert server.last_body["inputs"].startswith("<s>[system] Answer from")
    assert server.last_body["inputs"].endswith("[user] When? [assistant]")
    assert count.tokens == end_of(events).usage.input_tokens


async def test_bad_template_fails_when_the_engine_is_opened(tmp_path: Path) -> None:
    """By name and line, before any question."""
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({"chat_template": "a\n{% if %}"}))
    with pytest.raises(NotReady, match="line 2"):
        async with open_engine(f"tgi://127.0.0.1:1?template={path}"):
            pass


async def test_limits_are_those_of_the_node(plain_engine: Engine, server: TgiServer) -> None:
    """Window and the number of requests that it takes."""
    info = await plain_engine.info()
    dials = server.dials
    assert (info.max_input_tokens, info.max_total_tokens) == (dials.max_input_tokens, dials.max_total_tokens)
    assert info.max_concurrent_requests == dials.max_concurrent_requests


@pytest.mark.parametrize(
    ("sampling", "sent"),
    [(Sampling(), 0), (Sampling(temperature=0, top_p=0.5), 0), (Sampling(temperature=0.7, top_p=1), 0.7)],
)
async def test_chat_route_is_greedy_by_a_temperature_of_0(server: TgiServer, sampling: Sampling, sent: float) -> None:
    """The chat route samples where none is given, which the others do not."""
    async with open_engine(f"{server.url.replace('http', 'tgi')}?template=engine") as engine:
        await collect(engine, harbour_request(sampling))
    assert server.last_path == "/v1/chat/completions"
    assert server.last_body["temperature"] == sent
    assert "top_p" not in server.last_body


async def test_chat_route_has_no_top_k() -> None:
    """Refused by its name, not dropped."""
    async with open_engine("tgi://127.0.0.1:1?template=engine") as engine:
        with pytest.raises(InvalidRequest) as raised:
            await collect(engine, harbour_request(Sampling(temperature=1, top_k=5)))
    assert raised.value.field == "sampling.top_k"
