"""Every way in which the contract server fails on purpose, on the wire."""

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator

import httpx2
import pytest

from servicekit.testing.tgi_server.dials import Dials, Fault
from servicekit.testing.tgi_server.server import TgiServer, open_tgi_server

_PATIENCE_S = 20.0
_ROUTES = {
    "/generate": {"inputs": "x"},
    "/generate_stream": {"inputs": "x"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}], "stream": True},
    "/v1/completions": {"prompt": "x", "stream": True},
}
_STREAMS = [path for path in _ROUTES if path != "/generate"]


@pytest.fixture
async def server() -> AsyncIterator[TgiServer]:
    """A contract server."""
    async with open_tgi_server() as running:
        yield running


@pytest.fixture
async def http(server: TgiServer) -> AsyncIterator[httpx2.AsyncClient]:
    """A plain HTTP client on it."""
    async with httpx2.AsyncClient(base_url=server.url, trust_env=False, timeout=_PATIENCE_S) as client:
        yield client


async def _raw(server: TgiServer, path: str) -> tuple[bytes, list[float]]:
    """All bytes of the answer to one request whose connection then closes, and when each read came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
    body = json.dumps(_ROUTES[path]).encode()
    writer.write(b"POST %b HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (path.encode(), len(body), body))
    received, times = b"", []
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while not _is_whole(received) and (read := await reader.read(65_536)):
                received += read
                times.append(time.monotonic())
    except ConnectionResetError:
        received += b"<reset>"
    finally:
        writer.close()
    return received, times


def _is_whole(received: bytes) -> bool:
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return len(body) == int(length[1]) if length else received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ("refuse", 429, "overloaded"),
        ("invalid", 422, "validation"),
        ("unavailable", 503, "healthcheck"),
        ("error", 424, "generation"),
        ("incomplete", 500, "incomplete_generation"),
    ],
)
async def test_failures_have_their_status_and_their_frame(
    http: httpx2.AsyncClient, server: TgiServer, fault: str, status: int, kind: str
) -> None:
    """A whole answer fails by status; a stream by a frame of HTTP 200, on the chat route as 422."""
    server.turn(fault=fault, fault_after_tokens=2)
    whole = await http.post("/generate", json=_ROUTES["/generate"])
    assert (whole.status_code, whole.json()["error_type"]) == (status, kind)
    for path in _STREAMS:
        streamed = await http.post(path, json=_ROUTES[path])
        assert streamed.status_code == 200
        last = json.loads(streamed.text.strip().splitlines()[-1][5:])
        if path == "/v1/chat/completions":
            assert last["error"]["http_status_code"] == 422
        else:
            assert last["error_type"].startswith(kind)


@pytest.mark.parametrize("path", list(_ROUTES))
async def test_a_dropped_connection_gives_nothing(server: TgiServer, path: str) -> None:
    """It is reset before any byte."""
    server.turn(fault="drop")
    received, _ = await _raw(server, path)
    assert received in {b"", b"<reset>"}


@pytest.mark.parametrize("path", _STREAMS)
@pytest.mark.parametrize("fault", ["cut", "end_early", "garbage"])
async def test_streams_break_after_their_tokens(server: TgiServer, path: str, fault: str) -> None:
    """The tokens before the fault came; the end did not, however the stream ended."""
    server.turn(fault=fault, fault_after_tokens=3)
    received, _ = await _raw(server, path)
    assert received.count(b"data:") == 3 + (fault == "garbage")
    assert b"[DONE]" not in received
    assert b'"length"' not in received
    assert received.endswith(b"0\r\n\r\n") == (fault != "cut")


@pytest.mark.parametrize("path", list(_ROUTES))
@pytest.mark.parametrize("fault", ["hang", "stall"])
async def test_silence_lasts_until_the_caller_leaves(server: TgiServer, path: str, fault: str) -> None:
    """Nothing more comes, and the server is rid of it once the caller is gone."""
    server.turn(fault=fault, fault_after_tokens=2)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(_raw(server, path), 0.2)
    await asyncio.wait_for(server.idle(), _PATIENCE_S)
    assert server.counts.cancelled == 1
    assert server.busy_connections == 0


@pytest.mark.parametrize("path", list(_ROUTES))
async def test_a_slow_loris_sends_byte_by_byte(server: TgiServer, path: str) -> None:
    """Head and body come in single bytes, and in the end they are whole."""
    server.turn(fault="slow_loris", slow_byte_s=0.0005, answer="one two", fault_requests=1)
    slow, times = await _raw(server, path)
    assert times[-1] - times[0] >= len(slow) * 0.0005 * 0.5
    assert server.counts.completed == 1
    assert slow.startswith(b"HTTP/1.1 200 OK\r\n")
    assert len(times) > len(slow) / 2


async def test_leaving_a_slow_loris_is_a_cancellation(server: TgiServer) -> None:
    """The generation is open until its last byte was sent."""
    server.turn(fault="slow_loris", slow_byte_s=0.05)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(_raw(server, "/generate_stream"), 0.2)
    await asyncio.wait_for(server.idle(), _PATIENCE_S)
    assert (server.counts.cancelled, server.counts.open) == (1, 0)


async def test_health_and_start_are_dials() -> None:
    """A starting server answers 503 everywhere; an unhealthy one still generates."""
    async with (
        open_tgi_server(Dials(start_s=0.2)) as server,
        httpx2.AsyncClient(base_url=server.url, trust_env=False) as http,
    ):
        for path in ("/info", "/health", "/metrics"):
            assert (await http.get(path)).status_code == 503
        assert (await http.post("/generate", json={"inputs": "x"})).status_code == 503
        async with asyncio.timeout(_PATIENCE_S):
            while (await http.get("/health")).status_code == 503:
                await asyncio.sleep(0.01)
        server.turn(healthy=False)
        assert (await http.get("/health")).json() == {"error": "unhealthy", "error_type": "healthcheck"}
        assert (await http.post("/generate", json={"inputs": "x"})).status_code == 200


async def test_unknown_dials_are_refused_by_name(http: httpx2.AsyncClient) -> None:
    """A misspelt dial is told, and changes nothing."""
    refused = await http.put("/dials", json={"speed": 3})
    assert (refused.status_code, refused.json()["error"]) == (400, "there are no dials named ['speed']")


async def test_a_key_is_asked_for(http: httpx2.AsyncClient, server: TgiServer) -> None:
    """With a key set, generation needs it, and health does not."""
    server.turn(api_key="ours")
    assert (await http.post("/generate", json={"inputs": "x"})).status_code == 401
    keyed = await http.post("/generate", json={"inputs": "x"}, headers={"authorization": "Bearer ours"})
    assert keyed.status_code == 200
    assert (await http.get("/health")).status_code == 200


async def test_help_lists_the_dials() -> None:
    """`--help` names every dial and every fault."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "servicekit.testing.tgi_server", "--help", stdout=asyncio.subprocess.PIPE
    )
    told = (await asyncio.wait_for(process.communicate(), 30))[0].decode()
    assert all(f"--{name.replace('_', '-')} " in told for name in Dials.__dataclass_fields__)
    assert all(fault.value in told for fault in Fault)
