"""The contract server speaks as TGI does, and its dials do what they say."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.testing.tgi_server.server import TgiServer, open_tgi_server
from servicekit.testing.tgi_server.tokenizer import tokenize


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
    assert all(line.startswith("data:") for line in body.splitlines() if line)
    return [json.loads(line[5:]) for line in body.splitlines() if line and "[DONE]" not in line]


async def test_stream_frames_count_up_and_the_last_has_details(http: httpx2.AsyncClient) -> None:
    """Frames are indexed from 1; only the last one has text and details; there is no `[DONE]`."""
    body = {"inputs": "a question", "parameters": {"details": True}}
    response = await http.post("/generate_stream", json=body)
    frames = _frames(response.text)
    assert "[DONE]" not in response.text
    assert [frame["index"] for frame in frames] == list(range(1, len(frames) + 1))
    assert all(frame["details"] is None and frame["generated_text"] is None for frame in frames[:-1])
    text = "".join(frame["token"]["text"] for frame in frames if not frame["token"]["special"])
    assert frames[-1]["generated_text"] == text
    assert frames[-1]["details"] == {
        "finish_reason": "eos_token",
        "generated_tokens": len(frames),
        "seed": None,
        "input_length": 2,
    }


async def test_base_path_streams_or_lists(http: httpx2.AsyncClient) -> None:
    """The compatibility route streams when told to, and else answers with a list of one."""
    streamed = await http.post("/", json={"inputs": "x", "stream": True})
    whole = await http.post("/", json={"inputs": "x"})
    single = await http.post("/generate", json={"inputs": "x"})
    assert _frames(streamed.text)[-1]["generated_text"] == whole.json()[0]["generated_text"]
    assert single.json()["generated_text"] == whole.json()[0]["generated_text"]
    assert single.headers["x-prompt-tokens"] == "1"


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"temperature": 0}, "`temperature` must be strictly positive"),
        ({"top_p": 1}, "`top_p` must be > 0.0 and < 1.0"),
        ({"top_k": 0}, "`top_k` must be strictly positive"),
        ({"frequency_penalty": 3}, "`frequency_penalty`"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive"),
        ({"typical_p": 1.5}, "`typical_p` must be > 0.0 and < 1.0"),
        ({"repetition_penalty": 0}, "`repetition_penalty` must be strictly positive"),
        ({"truncate": 0}, "`truncate` must be strictly positive and less than 4095. Given: 0"),
        ({"top_n_tokens": 6}, "`top_n_tokens` must be >= 0 and <= 5. Given: 6"),
        ({"max_new_tokens": 5000}, "must be <= 4096"),
        ({"stop": list("abcde")}, "up to 4 stop sequences. Given: 5"),
    ],
)
async def test_bounds_are_tgis(http: httpx2.AsyncClient, parameters: dict[str, Any], told: str) -> None:
    """Out of bounds is 422 with a typed error, and inside a stream the same as HTTP 200."""
    body = {"inputs": "x", "parameters": parameters}
    whole = await http.post("/generate", json=body)
    streamed = await http.post("/generate_stream", json=body)
    assert (whole.status_code, whole.json()["error_type"]) == (422, "validation")
    assert told in whole.json()["error"]
    assert streamed.status_code == 200
    assert _frames(streamed.text) == [whole.json()]


@pytest.mark.parametrize(
    ("fault", "status", "kind"), [("refuse", 429, "overloaded"), ("unavailable", 503, "healthcheck")]
)
async def test_refusals_have_their_status(
    http: httpx2.AsyncClient, server: TgiServer, fault: str, status: int, kind: str
) -> None:
    """A refusing server says so by status, and in a stream by a frame of HTTP 200."""
    server.turn(fault=fault)
    whole = await http.post("/generate", json={"inputs": "x"})
    streamed = await http.post("/generate_stream", json={"inputs": "x"})
    assert (whole.status_code, whole.json()["error_type"]) == (status, kind)
    assert (streamed.status_code, _frames(streamed.text)[0]["error_type"]) == (200, kind)


async def test_chat_route_streams_openais_chunks(http: httpx2.AsyncClient) -> None:
    """Chunks, then usage where it was asked for, then `[DONE]`."""
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True, "stream_options": {"include_usage": True}}
    response = await http.post("/v1/chat/completions", json=body)
    chunks = _frames(response.text)
    assert response.text.endswith("data: [DONE]\n\n")
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["completion_tokens"] == len(chunks) - 1
    body.pop("stream_options")
    without = _frames((await http.post("/v1/chat/completions", json=body)).text)
    assert all(chunk["usage"] is None for chunk in without)


async def test_dials_and_counts_are_reachable_from_outside(http: httpx2.AsyncClient) -> None:
    """Another process can turn the dials and reconcile the counts."""
    assert (await http.put("/dials", json={"answer": "one two", "fault": "none"})).json()["answer"] == "one two"
    answer = (await http.post("/generate", json={"inputs": "a b c"})).json()
    counts = (await http.get("/counts")).json()
    assert answer["generated_text"] == "one two"
    assert (counts["input_tokens"], counts["output_tokens"], counts["completed"]) == (3, 3, 1)


@pytest.mark.parametrize("path", ["/info", "/health", "/metrics", "/v1/models"])
async def test_control_routes_answer(http: httpx2.AsyncClient, path: str) -> None:
    """What a pool polls is there."""
    assert (await http.get(path)).status_code == 200


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff"])
async def test_nonsense_is_refused_and_the_connection_lives(http: httpx2.AsyncClient, body: bytes) -> None:
    """A body that is no JSON object is 400, and the next request works."""
    assert (await http.post("/generate", content=body)).status_code == 400
    assert (await http.get("/health")).status_code == 200


async def test_runs_as_a_process() -> None:
    """The module prints its address, serves, and ends on SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "servicekit.testing.tgi_server",
        "--answer",
        "from afar",
        "--report-usage",
        "false",
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            url = (await process.stdout.readline()).decode().split()[-1]
            async with httpx2.AsyncClient(base_url=url, trust_env=False) as client:
                answer = await client.post("/generate", json={"inputs": "x"})
            assert answer.json()["generated_text"] == "from afar"
            process.terminate()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@given(st.text(max_size=300))
def test_tokens_joined_are_the_text(text: str) -> None:
    """Tokenizing loses nothing."""
    pieces = tokenize(text)
    assert "".join(piece.text for piece in pieces) == text
    assert all(text[piece.start : piece.stop] == piece.text for piece in pieces)
