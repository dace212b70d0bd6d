"""A replica killed under load: whoever had no token yet is answered by another, and the replica is used again.

Servers are processes, killed with SIGKILL and started again on the same port.
"""

import asyncio
import json
import socket
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from servicekit.domain.generation import TokenEvent
from servicekit.domain.prompt import Sampling
from servicekit.errors import BackendUnavailable, BinnacleError
from services.generator.generating import Answer, Generator
from tests.integration.generator_pools import PRICES, open_generator, question

_REPLICAS = 3
_CALLERS = 24
_PATIENCE_S = 60.0
# A stream of 30 tokens at 60 a second, its first after 0.1 s: some are killed before it, some after.
_DIALS = ("--output-tokens", "30", "--tokens-per-s", "60", "--first-token-s", "0.1")


@dataclass
class Server:
    """A contract server in a process of its own."""

    port: int
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it listens."""
        module = "servicekit.testing.tgi_server"
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, "--port", str(self.port), *_DIALS, stdout=asyncio.subprocess.PIPE
        )
        assert self.process.stdout is not None
        assert await asyncio.wait_for(self.process.stdout.readline(), _PATIENCE_S)

    async def kill(self) -> None:
        """End it at once, with whatever it was doing."""
        if self.process is not None:
            self.process.kill()
            await self.process.wait()
            self.process = None

    async def completed(self) -> int:
        """Generations that it brought to their end since it started."""

        def ask() -> int:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/counts", timeout=5) as response:
                return int(json.load(response)["completed"])

        return await asyncio.to_thread(ask)


@dataclass
class Tally:
    """What came of the requests."""

    streaming: int = 0
    answered: int = 0
    retried: int = 0
    broken: list[BinnacleError] = field(default_factory=list)
    failed: list[BinnacleError] = field(default_factory=list)
    going: bool = True


@asynccontextmanager
async def _servers() -> AsyncIterator[list[Server]]:
    servers = [Server(_free_port()) for _ in range(_REPLICAS)]
    try:
        await asyncio.gather(*(server.start() for server in servers))
        yield servers
    finally:
        for server in servers:
            await server.kill()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def _call(generator: Generator, tally: Tally, output_tokens: int) -> None:
    """Ask again and again, as a caller under load does; lengths differ, so that callers do not march in step."""
    asked = question(sampling=Sampling(max_output_tokens=output_tokens))
    while tally.going:
        released = 0
        try:
            async for event in generator.answer(asked, remaining_s=_PATIENCE_S):
                if isinstance(event, TokenEvent):
                    tally.streaming += not released
                    released += event.token_count
                elif isinstance(event, Answer):
                    tally.answered += 1
                    tally.retried += len(event.attempts) > 1
        except BinnacleError as error:
            (tally.broken if released else tally.failed).append(error)
        finally:
            tally.streaming -= bool(released)


async def test_replica_killed_under_load_fails_no_request_without_a_token() -> None:
    """Streams that had begun end with the typed, resumable error; no other fails; the replica is used again."""
    async with _servers() as servers, asyncio.TaskGroup() as tasks:
        engine = {"urls": [f"tgi://127.0.0.1:{server.port}" for server in servers]}
        content = {"extractive_fallback": False, "models": {"default": {"engines": [engine], **PRICES}}}
        async with open_generator(content) as generator:
            tally = Tally()
            callers = [tasks.create_task(_call(generator, tally, 8 + number)) for number in range(_CALLERS)]
            await _until_answered(tally, 3 * _CALLERS)
            await _until_streaming(tally, 2 * _CALLERS // 3)
            await servers[0].kill()
            await _until_answered(tally, tally.answered + 4 * _CALLERS)
            await servers[0].start()
            await _until_used(servers[0])
            tally.going = False
            await asyncio.wait(callers)
    assert not tally.failed, [(type(error), error.reason, error.message) for error in tally.failed]
    assert tally.retried
    assert tally.broken
    for error in tally.broken:
        assert isinstance(error, BackendUnavailable)
        assert error.metadata["resumable"] == "true"
        assert int(error.metadata["released_tokens"]) > 0


async def test_whole_pool_killed_falls_back() -> None:
    """With every replica gone the fallback answers, and the replicas are used again when they return."""
    async with _servers() as servers:
        engine = {"urls": [f"tgi://127.0.0.1:{server.port}" for server in servers[:2]]}
        models = {
            "default": {"engines": [engine], "fallbacks": ["spare"], **PRICES},
            "spare": {"engine_url": f"tgi://127.0.0.1:{servers[2].port}"},
        }
        async with open_generator({"extractive_fallback": False, "models": models}) as generator:
            assert await _alias(generator) == "default"
            for server in servers[:2]:
                await server.kill()
            for _ in range(5):
                assert await _alias(generator) == "spare"
            for server in servers[:2]:
                await server.start()
            async with asyncio.timeout(_PATIENCE_S):
                while await _alias(generator) != "default":
                    await asyncio.sleep(0.1)


async def _alias(generator: Generator) -> str:
    """Which alias answers now."""
    last = [event async for event in generator.answer(question(), remaining_s=_PATIENCE_S)][-1]
    assert isinstance(last, Answer)
    return last.attempts[-1].model_alias


async def _until_answered(tally: Tally, count: int) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while tally.answered < count:
            await asyncio.sleep(0.02)


async def _until_streaming(tally: Tally, count: int) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while tally.streaming < count:
            await asyncio.sleep(0.005)


async def _until_used(server: Server) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while await server.completed() < 3:
            await asyncio.sleep(0.1)
