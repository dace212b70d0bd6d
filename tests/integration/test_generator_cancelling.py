"""Callers that go away: their work ends at the engine, at once, and nothing of it is left running."""

import asyncio
import gc
import random
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from binnacle.generator.v1 import generator_service_pb2 as rpc
from binnacle.generator.v1.generator_service_pb2_grpc import GeneratorServiceStub
from servicekit.domain.generation import FinishReason
from servicekit.testing.in_process import Trust, caller, channel_to, running_service
from servicekit.testing.tgi_server.counting import End
from servicekit.testing.tgi_server.server import TgiServer, open_tgi_server
from services.generator.bootstrap import build
from services.generator.config import Settings
from services.generator.pool.replica_pool import ReplicaPool
from tests.integration.generator_pools import recorded_attempts, url_of

_STREAMS = 1_000
_AT_ONCE = 100
_PATIENCE_S = 30.0
_REACHES_WITHIN_S = 0.05


@dataclass
class Running:
    """A generator over two replicas."""

    stub: Any
    servers: tuple[TgiServer, TgiServer]

    def open(self, request_id: str) -> Any:
        """Begin a stream."""
        request = rpc.GenerateAnswerRequest(question="When does the harbour open?", request_id=request_id)
        return self.stub.GenerateAnswer(request, timeout=_PATIENCE_S)

    async def idle(self) -> None:
        """Wait until no server works."""
        async with asyncio.timeout(_PATIENCE_S):
            for server in self.servers:
                await server.idle()


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """Streams of 40 tokens at 50 a second, the first after 50 ms."""
    trust = Trust.create(tmp_path)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(open_tgi_server())
        second = await stack.enter_async_context(open_tgi_server())
        for server in (first, second):
            server.turn(output_tokens=40, tokens_per_s=50, first_token_s=0.05)
        models = {"default": {"engines": [{"urls": [url_of(first, "tgi"), url_of(second, "tgi")]}]}}
        settings = Settings(
            port=0, metrics_port=0, drain_s=0, token_public_key_file=trust.public_key_file, models=models
        )
        lifecycle = await stack.enter_async_context(running_service(settings, build))
        channel = await stack.enter_async_context(channel_to(lifecycle, trust))
        stack.enter_context(caller())
        yield Running(GeneratorServiceStub(channel), (first, second))


async def _leave(running: Running, number: int, chance: random.Random, places: asyncio.Semaphore) -> int:
    """Begin a stream and cancel it at some point; how many messages had come."""
    async with places:
        call, came = running.open(f"r{number}"), 0
        if chance.random() < 0.4:
            await asyncio.sleep(chance.random() * 0.12)  # the point is to leave at any moment, before a token too
        else:
            for _ in range(chance.randint(1, 12)):
                event = await call.read()
                came += event is not grpc.aio.EOF
        call.cancel()
        assert await call.code() is grpc.StatusCode.CANCELLED
        return came


async def test_a_thousand_cancelled_streams_leave_nothing_behind(running: Running) -> None:
    """Wherever callers leave, the servers see every cancellation; no task, connection or lease is left."""
    await asyncio.gather(*[_read_all(running, f"warm{number}") for number in range(2)])
    before = len(asyncio.all_tasks())
    chance, places = random.Random(6), asyncio.Semaphore(_AT_ONCE)  # a repeatable test
    with recorded_attempts() as attempts:
        came = await asyncio.gather(*(_leave(running, number, chance, places) for number in range(_STREAMS)))
        await running.idle()
        await _until(lambda: len(asyncio.all_tasks()) <= before)
    ended = [one.end for server in running.servers for one in server.generations()]
    cancelled = sum(server.counts.cancelled for server in running.servers)
    assert cancelled >= sum(count > 0 for count in came)
    assert sum(server.counts.completed for server in running.servers) == 2
    assert End.OPEN not in ended
    assert End.FAILED not in ended
    assert {attempt.finish_reason for attempt in attempts} == {FinishReason.CANCELLED}
    assert sum(server.busy_connections for server in running.servers) == 0
    pools = [pool for pool in gc.get_objects() if isinstance(pool, ReplicaPool)]
    assert [status.outstanding_tokens for pool in pools for status in pool.statuses()].count(0) >= 2
    assert all(status.outstanding_tokens == 0 for pool in pools for status in pool.statuses())
    assert all(pool.waiting == 0 for pool in pools)
    assert (await _read_all(running, "after")).end.answer


@pytest.mark.parametrize("tokens", [0, 3])
async def test_cancellation_reaches_the_engine_at_once(running: Running, tokens: int) -> None:
    """From the caller's cancel to the engine's end of work it takes less than 50 ms (median), at any stage."""
    if not tokens:
        for server in running.servers:
            server.turn(first_token_s=5.0)
    took_s = []
    for number in range(20):
        call = running.open(f"c{number}")
        for _ in range(tokens):
            await call.read()
        await _until(lambda: any(server.counts.open for server in running.servers))
        began_s = time.monotonic()
        call.cancel()
        await running.idle()
        took_s.append(time.monotonic() - began_s)
    assert statistics.median(took_s) < _REACHES_WITHIN_S
    assert sum(server.counts.cancelled for server in running.servers) == 20


async def _read_all(running: Running, request_id: str) -> rpc.GenerateAnswerResponse:
    return [event async for event in running.open(request_id)][-1]


async def _until(holds: Any) -> None:
    """Poll for what ends by itself."""
    async with asyncio.timeout(_PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.002)
