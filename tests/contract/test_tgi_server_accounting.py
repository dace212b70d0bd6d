"""The contract server's counts account for every generation, whatever its end, and it sees at once who hangs up."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from servicekit.testing.tgi_server.counting import End, Stage
from servicekit.testing.tgi_server.server import TgiServer, open_tgi_server

_PATIENCE_S = 20.0


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


class Caller:
    """A raw connection that asks for a stream and may hang up at any moment."""

    def __init__(self, server: TgiServer, identity: str) -> None:
        self._port = int(server.url.rsplit(":", 1)[1])
        self._identity = identity
        self.left_at_s = 0.0

    async def ask(self, *, words: int = 3) -> None:
        """Send the request."""
        body = json.dumps({"inputs": "word " * words}).encode()
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = (
            f"POST /generate_stream HTTP/1.1\r\nx-request-id: {self._identity}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        await self._writer.drain()

    async def read_frames(self, wanted: int) -> None:
        """Read until so many frames came."""
        text = b""
        async with asyncio.timeout(_PATIENCE_S):
            while text.count(b"data:") < wanted:
                read = await self._reader.read(65_536)
                assert read
                text += read

    def leave(self) -> None:
        """Hang up."""
        self.left_at_s = time.monotonic()
        self._writer.close()


async def _until(told: Any) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while not told():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("speed", [{"tokens_per_s": 50}, {"decode_step_s": 0.02}])
async def test_a_hang_up_is_seen_at_once_in_every_stage(
    server: TgiServer, stage: Stage, speed: dict[str, float]
) -> None:
    """Queued, in prefill or in decode, the place is free within a step of the caller's leaving."""
    server.turn(max_batch_size=1, output_tokens=1_000, prefill_tokens_per_s=1_000, **speed)
    holder, caller = Caller(server, "holder"), Caller(server, "it")
    if stage is Stage.QUEUED:
        await holder.ask()
        await _until(lambda: server.generations("holder"))
    await caller.ask(words=3_000 if stage is Stage.PREFILL else 3)
    await _until(lambda: server.generations("it"))
    if stage is Stage.DECODE:
        await caller.read_frames(3)
    await _until(lambda: server.generations("it")[0].stage is stage)
    caller.leave()
    await _until(lambda: server.counts.cancelled == 1)
    (generation,) = server.generations("it")
    assert (generation.end, generation.stage) == (End.CANCELLED, stage)
    assert generation.ended_at_s - caller.left_at_s < 0.05
    assert generation.noticed_s is not None
    assert generation.noticed_s < 0.05
    assert (generation.output_tokens > 0) == (stage is Stage.DECODE)
    if stage is Stage.QUEUED:
        holder.leave()
    await asyncio.wait_for(server.idle(), _PATIENCE_S)
    assert (server.counts.open, server.busy_connections, server.open_connections) == (0, 0, 0)


@pytest.mark.parametrize("speed", [{"tokens_per_s": 200}, {"decode_step_s": 0.005}])
async def test_every_one_of_many_hang_ups_is_counted(server: TgiServer, speed: dict[str, float]) -> None:
    """Three hundred streams left at random points: all ends add up, and nothing is left running."""
    server.turn(output_tokens=40, max_batch_size=100, **speed)
    chance = random.Random(7)

    async def one(number: int) -> None:
        caller = Caller(server, f"r{number}")
        await caller.ask()
        if number % 3:
            await asyncio.sleep(chance.random() * 0.4)
        else:
            await caller.read_frames(41)
        caller.leave()

    async with asyncio.timeout(60):
        await asyncio.gather(*(one(number) for number in range(300)))
        await _until(lambda: server.counts.completed + server.counts.cancelled == 300)
    counts, generations = server.counts, server.generations()
    assert counts.completed >= 100
    assert counts.cancelled > 0
    assert counts.open == 0
    assert sum(one.output_tokens for one in generations) == counts.output_tokens
    assert sum(one.input_tokens for one in generations) == counts.input_tokens
    assert {one.end for one in generations} == {End.COMPLETED, End.CANCELLED}
    await _until(lambda: server.open_connections == 0)


@pytest.mark.parametrize(
    ("fault", "output_tokens"),
    [("none", 13), ("drop", 0), ("cut", 4), ("end_early", 4), ("garbage", 4), ("error", 4), ("incomplete", 4)],
)
@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/v1/completions"])
async def test_tokens_are_counted_up_to_the_fault(
    http: httpx2.AsyncClient, server: TgiServer, path: str, fault: str, output_tokens: int
) -> None:
    """What was generated before a generation failed is counted, on every route."""
    server.turn(fault=fault, fault_after_tokens=4)
    body = {"prompt": "a b c"} if path == "/v1/completions" else {"inputs": "a b c"}
    try:
        await http.post(path, json=body, headers={"x-request-id": "it"})
    except httpx2.TransportError:
        assert fault in {"drop", "cut", "end_early"}
    end = End.COMPLETED if fault == "none" else End.FAILED
    (generation,) = server.generations("it")
    assert (generation.end, generation.output_tokens, generation.input_tokens) == (end, output_tokens, 3)
    assert server.counts.output_tokens == output_tokens
    assert server.counts.open == 0


async def test_refusals_are_told_apart_from_generations(http: httpx2.AsyncClient, server: TgiServer) -> None:
    """A refused request is in the list with no tokens, and no generation."""
    await http.post("/generate", json={"inputs": ""}, headers={"x-request-id": "it"})
    assert (server.counts.refused, server.counts.generations) == (1, 0)
    assert [(one.id, one.end) for one in server.generations()] == [("it", End.REFUSED)]


async def test_generations_are_reachable_from_outside(http: httpx2.AsyncClient) -> None:
    """Another process can reconcile request by request."""
    for identity in ("a", "b", "b"):
        await http.post("/generate", json={"inputs": identity}, headers={"x-request-id": identity})
    every = (await http.get("/counts/generations")).json()
    both = (await http.get("/counts/generations", params={"id": "b"})).json()
    counts = (await http.get("/counts")).json()
    assert [one["id"] for one in every] == ["a", "b", "b"]
    assert [(one["end"], one["output_tokens"]) for one in both] == [("completed", 13)] * 2
    assert (counts["connections"], counts["tasks"]) == (1, 1)


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
async def test_a_share_of_faults_is_drawn_by_its_seed(http: httpx2.AsyncClient, server: TgiServer, path: str) -> None:
    """Thirty percent fail, the same ones for the same seed."""
    drawn = []
    for _ in range(2):
        server.turn(fault="error", fault_share=0.0)
        server.turn(fault_share=0.3, fault_seed=11)
        for _ in range(100):
            await http.post(path, json={"inputs": "x"})
        drawn.append([one.fault for one in server.generations()[-100:]])
    assert drawn[0] == drawn[1]
    assert 15 < drawn[0].count("error") < 45
