"""How an engine must fail and be left: every fault of the contract server, every moment to hang up.

Subclasses provide `engine` and `server`. What the events count is held against what the server counted, and nothing
may be left behind: no task of the loop, no connection with a request in hand.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import pytest

from servicekit.domain.generation import EngineEvent, TokenEvent
from servicekit.errors import BackendUnavailable, BinnacleError, InvalidRequest, Overloaded
from servicekit.ports.engine import Engine
from servicekit.testing.conformance.engine import PATIENCE_S, collect, harbour_request, text_of, tokens_of
from servicekit.testing.tgi_server.dials import Fault
from servicekit.testing.tgi_server.server import TgiServer

_LONG_TOKENS = 60
_DEADLINE_S = 0.3
_LEAVES_WITHIN_S = 0.25
_CANCEL_WITHIN_S = 0.05
_CANCEL_TRIES = 5
_ASK_AGAIN_S = 0.002


@dataclass(frozen=True)
class FaultCase:
    """A fault of the contract server, and how it must be told."""

    fault: Fault
    after_tokens: int
    error: type[BinnacleError]
    reason: str


FAULTS = (
    FaultCase(Fault.REFUSE, 0, Overloaded, "ENGINE_OVERLOADED"),
    FaultCase(Fault.INVALID, 0, InvalidRequest, "ENGINE_REFUSED"),
    FaultCase(Fault.UNAVAILABLE, 0, BackendUnavailable, "ENGINE_UNHEALTHY"),
    FaultCase(Fault.DROP, 0, BackendUnavailable, "STREAM_CUT"),
    FaultCase(Fault.CUT, 3, BackendUnavailable, "STREAM_CUT"),
    FaultCase(Fault.END_EARLY, 3, BackendUnavailable, "STREAM_CUT"),
    FaultCase(Fault.GARBAGE, 3, BackendUnavailable, "MALFORMED_RESPONSE"),
    FaultCase(Fault.ERROR, 3, BackendUnavailable, "GENERATION_FAILED"),
    FaultCase(Fault.INCOMPLETE, 3, BackendUnavailable, "GENERATION_FAILED"),
)
# Those that never end by themselves; slow_loris sends bytes, but not one token in time.
SILENT = ((Fault.HANG, 0), (Fault.SLOW_LORIS, 0), (Fault.STALL, 0), (Fault.STALL, 2))


@asynccontextmanager
async def nothing_left(server: TgiServer) -> AsyncIterator[None]:
    """No task more than before, and no request in hand, a moment after the block."""
    before = asyncio.all_tasks()
    yield
    await asyncio.wait_for(server.idle(), PATIENCE_S)
    await _until(lambda: not (asyncio.all_tasks() - before or server.busy_connections))


async def drain_into(engine: Engine, seen: list[EngineEvent]) -> None:
    """Add the events to `seen` as they come, so that they are known when an error ends them."""
    async with aclosing(engine.generate(harbour_request())) as events:
        await _read_into(events, seen)


async def _read_into(events: AsyncGenerator[EngineEvent, None], seen: list[EngineEvent]) -> None:
    async for event in events:
        seen.append(event)  # noqa: PERF401  # a comprehension would lose them


class EngineFaultConformance:
    """Every fault, every way to leave."""

    def test_every_fault_is_tried(self) -> None:
        """A fault that the contract server learns is tried here too."""
        assert {case.fault for case in FAULTS} | {fault for fault, _ in SILENT} == set(Fault) - {Fault.NONE}

    @pytest.mark.parametrize("case", FAULTS, ids=lambda case: str(case.fault))
    async def test_fault_has_its_error_and_the_next_request_works(
        self, engine: Engine, server: TgiServer, case: FaultCase
    ) -> None:
        """Each way to fail is told by type and reason, after the tokens that did come, each of them counted."""
        server.turn(fault=case.fault, fault_after_tokens=case.after_tokens, fault_requests=1)
        seen: list[EngineEvent] = []
        async with nothing_left(server):
            with pytest.raises(case.error) as raised:
                await asyncio.wait_for(drain_into(engine, seen), PATIENCE_S)
        assert raised.value.reason == case.reason
        assert tokens_of(seen) == case.after_tokens
        assert tokens_of(seen) == server.counts.output_tokens
        assert text_of(await collect(engine, harbour_request()))

    @pytest.mark.parametrize(("fault", "after_tokens"), SILENT)
    async def test_silence_ends_with_the_callers_timeout(
        self, engine: Engine, server: TgiServer, fault: Fault, after_tokens: int
    ) -> None:
        """An engine that says nothing is left when the caller's time is up, and learns of it."""
        server.turn(fault=fault, fault_after_tokens=after_tokens, fault_requests=1)
        seen: list[EngineEvent] = []
        start_s = time.monotonic()
        async with nothing_left(server):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(drain_into(engine, seen), _DEADLINE_S)
            assert time.monotonic() - start_s < _DEADLINE_S + _LEAVES_WITHIN_S
        assert server.counts.cancelled == 1
        assert tokens_of(seen) == after_tokens
        assert text_of(await collect(engine, harbour_request()))

    async def test_cut_loses_no_token_that_had_come(self, engine: Engine, server: TgiServer) -> None:
        """A caller who reads late still gets what was sent before the connection broke, then the error."""
        server.turn(fault=Fault.CUT, fault_after_tokens=5, fault_requests=1)
        seen: list[EngineEvent] = []
        async with aclosing(engine.generate(harbour_request())) as events:
            seen.append(await anext(events))
            await asyncio.wait_for(server.idle(), PATIENCE_S)
            await asyncio.sleep(0.05)
            with pytest.raises(BackendUnavailable):
                await _read_into(events, seen)
        assert tokens_of(seen) == server.counts.output_tokens == 5

    async def test_closing_cancels_at_the_server(self, engine: Engine, server: TgiServer) -> None:
        """A generation that is left early stops at the server too."""
        server.turn(output_tokens=_LONG_TOKENS, tokens_per_s=200)
        async with nothing_left(server), aclosing(engine.generate(harbour_request())) as events:
            assert isinstance(await anext(events), TokenEvent)
        assert server.counts.cancelled == 1
        assert server.counts.output_tokens < _LONG_TOKENS

    @pytest.mark.parametrize("moment", ["headers", "first_token", "stream"])
    async def test_cancellation_reaches_the_server_at_once(
        self, engine: Engine, server: TgiServer, moment: str
    ) -> None:
        """Whatever is waited for, the server knows within 50 ms that nobody does any more."""
        if moment == "stream":
            server.turn(output_tokens=_LONG_TOKENS, tokens_per_s=20)
        else:
            server.turn(fault=Fault.HANG if moment == "headers" else Fault.STALL)
        took_s = [await _cancel_one(engine, server) for _ in range(_CANCEL_TRIES)]
        assert server.counts.cancelled == _CANCEL_TRIES
        # The best of a few: a busy machine may keep the loop from either side's turn.
        assert min(took_s) < _CANCEL_WITHIN_S

    async def test_streams_left_at_random_leave_nothing(self, engine: Engine, server: TgiServer) -> None:
        """A hundred streams, each cancelled at a moment of its own: the server saw every one end."""
        server.turn(output_tokens=_LONG_TOKENS, tokens_per_s=300)
        async with nothing_left(server):
            tasks = [asyncio.ensure_future(drain_into(engine, [])) for _ in range(100)]
            for number in range(len(tasks)):
                await asyncio.sleep(0.001)
                tasks[number * 37 % len(tasks)].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        counts = server.counts
        assert counts.open == 0
        assert counts.generations == counts.completed + counts.cancelled + counts.failed


async def _cancel_one(engine: Engine, server: TgiServer) -> float:
    """Seconds from the cancellation of a generation to its end at the server."""
    before = server.counts.generations
    task = asyncio.ensure_future(drain_into(engine, []))
    await _until(lambda: server.counts.generations > before)
    await asyncio.sleep(0.02)
    start_s = time.monotonic()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.wait_for(server.idle(), PATIENCE_S)
    return time.monotonic() - start_s


async def _until(holds: Callable[[], bool]) -> None:
    """Return once it holds; nothing tells when."""
    for _ in range(round(PATIENCE_S / _ASK_AGAIN_S)):
        if holds():
            return
        await asyncio.sleep(_ASK_AGAIN_S)
    raise TimeoutError
