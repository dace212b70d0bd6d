"""Every fault of an engine, through the generator: its error or a stand-in, no hang, no leak, exact accounting."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from binnacle.generator.v1 import generator_service_pb2 as rpc
from binnacle.generator.v1.generator_service_pb2_grpc import GeneratorServiceStub
from servicekit.domain.generation import Attempt, FinishReason, TokenEvent
from servicekit.errors import BackendTimeout, BackendUnavailable, BinnacleError, InvalidRequest, Overloaded
from servicekit.rpc.status import to_error
from servicekit.testing.in_process import Trust, caller, channel_to, running_service
from servicekit.testing.tgi_server.counting import End
from servicekit.testing.tgi_server.server import TgiServer, open_tgi_server
from services.generator.bootstrap import build
from services.generator.config import Settings
from services.generator.generating import Answer, Generator, Spent
from tests.integration.generator_pools import (
    PRICES,
    open_generator,
    question,
    recorded_attempts,
    served_by,
    spent_at,
    url_of,
)

_DEADLINE_S = 1.0
_PATIENCE_S = 10.0
_MOST_ASKED = 60
ENGINES = ("tgi", "openai")
# What each fault is, before any token and after two.
AT_ONCE: dict[str, type[BinnacleError]] = {
    "refuse": Overloaded,
    "invalid": InvalidRequest,
    "unavailable": BackendUnavailable,
    "drop": BackendUnavailable,
    "hang": BackendTimeout,
    "slow_loris": BackendTimeout,
    "cut": BackendUnavailable,
    "end_early": BackendUnavailable,
    "garbage": BackendUnavailable,
    "error": BackendUnavailable,
    "incomplete": BackendUnavailable,
    "stall": BackendTimeout,
}
STATUSES = {
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    BackendUnavailable: grpc.StatusCode.UNAVAILABLE,
    BackendTimeout: grpc.StatusCode.DEADLINE_EXCEEDED,
}
IN_MID_STREAM = ("cut", "end_early", "garbage", "error", "incomplete", "stall")


@dataclass
class Outcome:
    """What came of one request."""

    texts: list[str] = field(default_factory=list)
    spent: Spent | None = None
    error: BinnacleError | None = None


async def _ask(generator: Generator) -> Outcome:
    """Ask once, within the deadline."""
    outcome = Outcome()
    try:
        async with asyncio.timeout(_PATIENCE_S):
            async for event in generator.answer(question(), remaining_s=_DEADLINE_S):
                if isinstance(event, TokenEvent):
                    outcome.texts.append(event.text)
                elif isinstance(event, Spent):
                    outcome.spent = event
    except BinnacleError as error:
        outcome.error = error
    return outcome


async def _settled() -> None:
    """Let what was cancelled end."""
    await asyncio.sleep(0.05)


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize(("fault", "after", "error"), [
    *((fault, 0, error) for fault, error in AT_ONCE.items()),
    *((fault, 2, AT_ONCE[fault]) for fault in IN_MID_STREAM),
])  # fmt: skip
async def test_fault_has_its_error_leaks_nothing_and_is_accounted(
    kind: str, fault: str, after: int, error: type[BinnacleError]
) -> None:
    """Alone, an engine's fault is its typed error, in time, resumable after tokens, counted as the engine counted."""
    async with open_tgi_server() as server:
        content = {"extractive_fallback": False, "models": {"default": {"engine_url": url_of(server, kind), **PRICES}}}
        with recorded_attempts() as attempts:
            async with open_generator(content) as generator:
                assert (await _ask(generator)).error is None
                before = asyncio.all_tasks()
                server.turn(fault=fault, fault_after_tokens=after, slow_byte_s=0.3)
                outcome = await _ask(generator)
                await asyncio.wait_for(server.idle(), _PATIENCE_S)
                await _settled()
                assert server.busy_connections == 0
                assert not {task for task in asyncio.all_tasks() - before if not task.done()}
    assert isinstance(outcome.error, error)
    assert outcome.spent is not None
    assert bool(outcome.texts) == bool(after)
    assert outcome.error.metadata.get("resumable") == ("true" if after else None)
    assert outcome.error.metadata.get("released_tokens") == (str(after) if after else None)
    _check_accounts(server, attempts)
    assert attempts[-1].finish_reason in {FinishReason.ERROR, FinishReason.DEADLINE}
    assert attempts[-1].duration_s < _DEADLINE_S + 0.5


def _check_accounts(server: TgiServer, attempts: Sequence[Attempt]) -> None:
    """The attempts are those of this server, and all that is not marked as an estimate is as it counted."""
    sure = [attempt for attempt in attempts if not attempt.usage.estimated]
    if len(sure) == len(attempts):
        assert spent_at(server, attempts) == served_by(server)
    counted = [(one.input_tokens, one.output_tokens) for one in server.generations() if one.end is not End.REFUSED]
    for attempt in sure:
        if attempt.usage.input_tokens:
            assert (attempt.usage.input_tokens, attempt.usage.output_tokens) in counted
    for attempt in attempts:
        assert attempt.cost.microusd == attempt.usage.input_tokens + 2 * attempt.usage.output_tokens


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("fault", [fault for fault in AT_ONCE if fault != "invalid"])
async def test_fault_of_one_replica_is_another_ones_answer(kind: str, fault: str) -> None:
    """Before the first token another replica of the pool answers, and the failed attempt is accounted too."""
    async with open_tgi_server() as bad, open_tgi_server() as good:
        bad.turn(fault=fault, slow_byte_s=0.3)
        engine = {"urls": [url_of(bad, kind), url_of(good, kind)], "first_token_s": 0.5, "affinity": False}
        content = {"extractive_fallback": False, "models": {"default": {"engines": [engine], **PRICES}}}
        answered = 0
        with recorded_attempts() as attempts:
            async with open_generator(content) as generator:
                # Which replica is tried first is for the pool to say: it is asked until it has tried the bad one.
                while answered < 6 or (len(attempts) == answered and answered < _MOST_ASKED):
                    events = [event async for event in generator.answer(question(), remaining_s=_PATIENCE_S)]
                    assert isinstance(events[-1], Answer)
                    assert not events[-1].degradations
                    answered += 1
                await asyncio.wait_for(bad.idle(), _PATIENCE_S)
        assert sum(attempt.finish_reason is FinishReason.STOP for attempt in attempts) == answered
        assert len(attempts) > answered
        assert {attempt.choice for attempt in attempts if attempt.number == 2} == {"retry"}
        assert spent_at(good, attempts) == served_by(good)
        if fault != "slow_loris":  # it generates at once what it never sends
            assert spent_at(bad, attempts) == served_by(bad)


@pytest.mark.parametrize("kind", ENGINES)
async def test_every_fault_has_its_status(kind: str, tmp_path: Path) -> None:
    """Over gRPC each fault ends in its status; after tokens the error says that it can be resumed, and from where."""
    trust = Trust.create(tmp_path)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_tgi_server())
        models_file = tmp_path / "models.yaml"
        content = {"extractive_fallback": False, "models": {"default": {"engine_url": url_of(server, kind)}}}
        models_file.write_text(yaml.safe_dump(content), "utf-8")
        settings = Settings(
            port=0, metrics_port=0, drain_s=0, token_public_key_file=trust.public_key_file, models_file=models_file
        )
        lifecycle = await stack.enter_async_context(running_service(settings, build))
        stub: Any = GeneratorServiceStub(await stack.enter_async_context(channel_to(lifecycle, trust)))
        stack.enter_context(caller())
        at_once = [*(fault for fault in AT_ONCE if fault != "refuse"), "refuse"]  # after it the pool waits a while
        for fault, after in [*((fault, 2) for fault in IN_MID_STREAM), *((fault, 0) for fault in at_once)]:
            server.turn(fault=fault, fault_after_tokens=after, slow_byte_s=0.3)
            call = stub.GenerateAnswer(rpc.GenerateAnswerRequest(question="When?"), timeout=_DEADLINE_S)
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                [event async for event in call]
            assert raised.value.code() is STATUSES[AT_ONCE[fault]], fault
            if after and AT_ONCE[fault] is not BackendTimeout:  # a deadline may end at the caller first
                metadata = to_error(raised.value, "generator").metadata
                assert (metadata["resumable"], metadata["released_tokens"]) == ("true", str(after))
        await asyncio.wait_for(server.idle(), _PATIENCE_S)
