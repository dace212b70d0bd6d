"""Streamed checks through gRPC: the guardrail alone, and the gateway in front of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from binnacle.events.v1 import interaction_completed_pb2 as event_pb
from binnacle.gateway.v1 import gateway_service_pb2 as gateway_pb
from binnacle.guardrail.v1 import guardrail_service_pb2 as rpc
from binnacle.type.v1 import verdict_pb2
from servicekit.errors import InvalidRequest, PermissionDenied
from servicekit.rpc.status import to_error
from servicekit.runtime.declaration import Service
from servicekit.runtime.stack import Stack
from servicekit.testing.in_process import Trust, running_service
from services.guardrail import bootstrap
from services.guardrail.config import Settings
from tests.integration.gateway_stack import Backends, RunningGateway, running_gateway
from tests.integration.test_guardrail_rpc import decisions, guardrail

EMAIL = "ada@analytical.org"


def start(**changes: Any) -> rpc.CheckStreamRequest:
    """The first frame."""
    context = rpc.CheckContext(request_id="r-1", conversation_id="c-1")
    return rpc.CheckStreamRequest(start=rpc.CheckStreamStart(**{"context": context, **changes}))


def text(written: str, *, final: bool = False, tokens: int = 1) -> rpc.CheckStreamRequest:
    """A frame of text."""
    return rpc.CheckStreamRequest(text=rpc.StreamedText(text=written, token_count=tokens, final=final))


async def frames(*requests: rpc.CheckStreamRequest) -> AsyncIterator[rpc.CheckStreamRequest]:
    """The frames, one after the other."""
    for request in requests:
        yield request


async def test_a_stream_is_redacted_across_tokens_and_decided_once(tmp_path: Path) -> None:
    """Released pieces stand for all that was sent; the end tells the delay; one event, without text."""
    async with guardrail(tmp_path) as running:
        call = running.stub.CheckStream(
            frames(start(), text("Ask ada"), text("@analyt"), text("ical.org.", final=True))
        )
        events = [event async for event in call]
    released = [event.released for event in events if event.HasField("released")]
    assert "".join(piece.text for piece in released) == "Ask [EMAIL_1]."
    assert sum(piece.source_chars for piece in released) == len(f"Ask {EMAIL}.")
    assert events[-1].ended.action == verdict_pb2.ACTION_REDACT
    assert events[-1].ended.judging_us > 0
    (decision,) = decisions(running.bus)
    assert (decision.request_id, decision.surface, decision.text_chars) == ("r-1", verdict_pb2.SURFACE_OUTPUT, 23)
    assert "analytical" not in str(decision)


async def test_text_comes_out_while_more_is_awaited(tmp_path: Path) -> None:
    """A word goes once the next has begun; the first delay is told in tokens."""
    async with guardrail(tmp_path) as running:
        call = running.stub.CheckStream()
        for request in (start(), text("Hello"), text(" wor")):
            await call.write(request)
        first = await call.read()
        await call.write(text("ld.", final=True))
        await call.done_writing()
        rest = [event for event in [await call.read(), await call.read()] if event]
    assert (first.released.text, first.released.source_chars) == ("Hello ", 6)
    assert rest[0].released.text == "world."
    assert rest[-1].ended.first_held_tokens <= 1


BAD: list[tuple[str, list[rpc.CheckStreamRequest], str]] = [
    ("no start", [text("a")], "start"),
    ("nothing", [], "start"),
    ("two starts", [start(), start()], "text"),
    ("too long", [start(), text("a" * 65_537)], "text.text"),
    ("too much", [start(), *[text("word " * 13_000)] * 16], "text.text"),
    ("empty chunk", [start(chunk_texts=[""])], "chunk_texts[0]"),
    ("tokens", [start(), text("a", tokens=-1)], "text.token_count"),
]


@pytest.mark.parametrize(("requests", "field"), [one[1:] for one in BAD], ids=[one[0] for one in BAD])
async def test_a_stream_that_breaks_the_contract_is_refused(
    tmp_path: Path, requests: list[rpc.CheckStreamRequest], field: str
) -> None:
    """INVALID_ARGUMENT names the field."""
    async with guardrail(tmp_path) as running:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            [event async for event in running.stub.CheckStream(frames(*requests))]
    error = to_error(failed.value, "guardrail")
    assert isinstance(error, InvalidRequest)
    assert error.field == field


async def test_values_need_the_scope_restore(tmp_path: Path) -> None:
    """PERMISSION_DENIED without it; with it a placeholder in three tokens comes back as what was typed."""
    context = rpc.CheckContext(conversation_id="c-1")
    asked = frames(start(restore=True), text("You are [EM"), text("AIL_1]", final=True))
    async with guardrail(tmp_path) as running:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            [event async for event in running.stub.CheckStream(asked)]
    assert isinstance(to_error(failed.value, "guardrail"), PermissionDenied)
    async with guardrail(tmp_path, scopes=("guard", "restore")) as running:
        await running.stub.CheckInput(rpc.CheckInputRequest(text=f"I am {EMAIL}.", context=context))
        call = running.stub.CheckStream(
            frames(start(restore=True), text("You are [EM"), text("AIL"), text("_1].", final=True))
        )
        released = [event.released async for event in call if event.HasField("released")]
    assert "".join(piece.text for piece in released) == "You are [EMAIL_1]."
    assert "".join(piece.restored_text or piece.text for piece in released) == f"You are {EMAIL}."


async def test_a_caller_that_hangs_up_leaves_one_decision(tmp_path: Path) -> None:
    """Cancelled while the answer is made: what was found by then is published."""
    async with guardrail(tmp_path) as running:
        call = running.stub.CheckStream()
        await call.write(start())
        await call.write(text(f"Ask {EMAIL} now. And"))
        assert (await call.read()).HasField("found")
        call.cancel()
        async with asyncio.timeout(5):
            while not decisions(running.bus):
                await asyncio.sleep(0.01)
    (decision,) = decisions(running.bus)
    assert decision.action == verdict_pb2.ACTION_REDACT


@asynccontextmanager
async def stack(
    folder: Path, backends: Backends, *, policy: str = "", **settings: Any
) -> AsyncIterator[tuple[RunningGateway, list[Service]]]:
    """A gateway with a guardrail of its own."""
    state = folder / "guardrail"
    state.mkdir()
    policies = folder / "policies"
    policies.mkdir()
    if policy:
        (policies / "default.yaml").write_text(policy)
    trust = Trust.create(folder)
    chosen = Settings(
        port=0,
        metrics_port=0,
        drain_s=0,
        grace_s=0.1,
        event_bus_url="memory://",
        state_dir=state,
        policy_dir=policies,
        allow_memory_vault=True,
        token_public_key_file=trust.public_key_file,
    )
    built: list[Service] = []

    async def build(configured: Settings, opened: Stack) -> Service:
        built.append(await bootstrap.build(configured, opened))
        return built[0]

    async with running_service(chosen, build) as guard:
        target = f"127.0.0.1:{guard.port}"
        async with running_gateway(folder, backends, guardrail_target=target, **settings) as gateway:
            yield gateway, built


async def ask(gateway: RunningGateway) -> list[Any]:
    """The events of one streamed answer."""
    request = gateway_pb.StreamAnswerRequest(question=gateway_pb.Question(text="What about offsets?"))
    return [event async for event in gateway.stub.StreamAnswer(request, metadata=gateway.auth(), timeout=20)]


async def test_an_address_in_three_tokens_never_reaches_the_caller(tmp_path: Path) -> None:
    """Through the gateway: tokens, answer and record are redacted, and the citation stands where it belongs."""
    backends = Backends(tokens=("Ask ", "ada", "@analyt", "ical.org", " [1]", ". ", "Bye."))
    async with stack(tmp_path, backends) as (gateway, built):
        events = await ask(gateway)
        (record,) = gateway.interactions()
        bus: Any = built[0].bus
        outputs = [one for one in decisions(bus) if one.surface == verdict_pb2.SURFACE_OUTPUT]
    tokens = "".join(event.token.text for event in events if event.HasField("token"))
    answer = events[-1].completed.answer
    assert tokens == answer.text == record.answer == "Ask [EMAIL_1] [1]. Bye."
    span = answer.citations[0].answer_span
    assert answer.text[span.start : span.end] == "[1]"
    kinds = [event.WhichOneof("event") for event in events]
    place = next(n for n, event in enumerate(events) if "EMAIL" in event.token.text)
    assert "verdict" in kinds[:place]
    assert len(outputs) == 1
    assert "check_output" in {timing.stage for timing in answer.timings}


GROUNDED = "detectors:\n  groundedness:\n    output: block\n    min_score: 0.5\n"


async def test_a_late_block_is_retracted_to_the_caller(tmp_path: Path) -> None:
    """What was shown and turns out to have no support is withdrawn; record and answer hold none of it."""
    tokens = ("Bananas ", "were ", "invented ", "by ", "Napoleon ", "in ", "1903. ", "All ", "of ", "them.")
    async with stack(tmp_path, Backends(tokens=tokens), policy=GROUNDED) as (gateway, _):
        events = await ask(gateway)
        (record,) = gateway.interactions()
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds.count("retracted") == 1
    assert "token" in kinds[: kinds.index("retracted")]
    assert events[kinds.index("retracted")].retracted.reason == "BLOCKED_OUTPUT"
    assert events[-1].completed.answer.outcome == gateway_pb.OUTCOME_BLOCKED
    assert record.outcome == event_pb.INTERACTION_OUTCOME_BLOCKED
    assert "Napoleon" not in str(record)


@pytest.mark.parametrize("guard_failure", ["closed", "open"])
async def test_a_guardrail_that_goes_in_the_middle(tmp_path: Path, guard_failure: str) -> None:
    """Closed: what was released is retracted, an honest refusal in its place. Open: the rest goes, and it is told."""
    gone = asyncio.Event()
    places: list[str] = []

    async def hook(name: str) -> None:
        places.append(name)
        if name == "token" and places.count("token") == 3:
            await gone.wait()

    backends = Backends(tokens=("One ", "two ", "three ", "four ", "five."), hook=hook)
    folder = tmp_path / "guard"
    folder.mkdir()
    trust = Trust.create(tmp_path)
    chosen = Settings(
        port=0,
        metrics_port=0,
        drain_s=0,
        grace_s=0,
        event_bus_url="memory://",
        state_dir=folder,
        allow_memory_vault=True,
        token_public_key_file=trust.public_key_file,
    )
    guard = running_service(chosen, bootstrap.build)
    lifecycle = await guard.__aenter__()
    target = f"127.0.0.1:{lifecycle.port}"
    async with running_gateway(tmp_path, backends, guardrail_target=target, guard_failure=guard_failure) as gateway:
        request = gateway_pb.StreamAnswerRequest(question=gateway_pb.Question(text="Count."))
        events = []
        async for event in gateway.stub.StreamAnswer(request, metadata=gateway.auth(), timeout=20):
            events.append(event)
            if event.HasField("token") and not gone.is_set():
                await guard.__aexit__(None, None, None)
                gone.set()
    answer = events[-1].completed.answer
    kinds = [event.WhichOneof("event") for event in events]
    rungs = {degradation.rung: degradation.cause for degradation in answer.degradations}
    if guard_failure == "closed":
        assert "retracted" in kinds
        assert rungs == {"honest_refusal": "GUARDRAIL_UNAVAILABLE"}
    else:
        assert "retracted" not in kinds
        assert answer.text == "One two three four five."
        assert rungs == {"unguarded_output": "GUARDRAIL_UNAVAILABLE"}
