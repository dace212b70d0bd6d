"""How calls are bounded in time: deadlines, budgets, slow readers, subscriptions. Through real gRPC."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import pytest

from binnacle.generator.v1 import generator_service_pb2 as pb
from binnacle.generator.v1 import generator_service_pb2_grpc as pb_grpc
from servicekit.rpc.deadline import Budget, current_budget, within
from servicekit.rpc.status import to_error
from servicekit.testing.in_process import caller, channel_to


async def sleep_for_ever(_request: Any, _context: Any) -> Any:
    """Never answer."""
    await asyncio.Event().wait()


def note_budget(script: Any) -> None:
    """Let the unary method note the time left."""

    async def note(_request: Any, _context: Any) -> Any:
        script.seen.append(current_budget().remaining_s())
        return pb.CountTokensResponse()

    script.unary = note


async def test_budget_opens_from_the_callers_deadline(serve: Any, script: Any) -> None:
    """The servicer sees what the caller granted; more than the maximum, or nothing, is the maximum."""
    note_budget(script)
    async with (
        serve(script, max_deadline_s=50) as serving,
        channel_to(serving.lifecycle, serving.trust, default_timeout_s=None) as channel,
    ):
        stub = pb_grpc.GeneratorServiceStub(channel)
        with caller():
            for timeout in (20, 4000, None):
                await stub.CountTokens(pb.CountTokensRequest(), timeout=timeout)
    assert script.seen == pytest.approx([20, 50, 50], abs=2)


async def test_outgoing_call_gets_what_remains(serve: Any, script: Any) -> None:
    """A call made within a budget has at most its time, whatever it asks for; a spent budget fails at once."""
    note_budget(script)
    async with serve(script) as serving, channel_to(serving.lifecycle, serving.trust) as channel:
        stub = pb_grpc.GeneratorServiceStub(channel)
        with caller(), within(Budget.from_remaining(10)):
            await stub.CountTokens(pb.CountTokensRequest())
            await stub.CountTokens(pb.CountTokensRequest(), timeout=100)
            await stub.CountTokens(pb.CountTokensRequest(), timeout=3)
        with caller(), within(Budget.from_remaining(0)), pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CountTokens(pb.CountTokensRequest())
    assert script.seen == pytest.approx([10, 10, 3], abs=1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_call_without_deadline_ends_at_the_maximum(serve: Any, script: Any) -> None:
    """A caller that names no deadline gets DEADLINE_EXCEEDED with details at the server's maximum."""
    script.unary = sleep_for_ever
    async with (
        serve(script, max_deadline_s=0.2) as serving,
        channel_to(serving.lifecycle, serving.trust, default_timeout_s=None) as channel,
    ):
        with caller(), pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb_grpc.GeneratorServiceStub(channel).CountTokens(pb.CountTokensRequest())
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert to_error(caught.value, "generator").reason == "DEADLINE_EXCEEDED"


async def test_slow_reader_is_cut(serve: Any, script: Any) -> None:
    """A stream whose reader takes nothing ends for the servicer after the stated time, and the next call works."""

    async def flood(_request: Any, _context: Any) -> AsyncIterator[Any]:
        for _ in range(1000):
            yield pb.GenerateAnswerResponse(token=pb.TokenDelta(text="x" * 100_000))

    script.stream = flood
    async with serve(script, slow_reader_s=0.2) as serving, channel_to(serving.lifecycle, serving.trust) as channel:
        stub = pb_grpc.GeneratorServiceStub(channel)
        with caller():
            call = stub.GenerateAnswer(pb.GenerateAnswerRequest())
            await call.read()
            async with asyncio.timeout(10):
                await script.ended.wait()
            await stub.CountTokens(pb.CountTokensRequest())
            with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                while await call.read() is not grpc.aio.EOF:
                    pass
            assert await call.code() is not grpc.StatusCode.OK


async def test_subscription_has_no_end_and_is_cut_at_drain(serve: Any, script: Any) -> None:
    """A long-lived stream outlives the maximum deadline; when the server drains it ends with UNAVAILABLE at once."""

    async def subscribe(_request: Any, _context: Any) -> AsyncIterator[Any]:
        script.seen.append(current_budget().remaining_s())
        yield pb.GenerateAnswerResponse()
        await asyncio.Event().wait()

    script.stream = subscribe
    loop = asyncio.get_running_loop()
    async with (
        serve(script, long_lived=frozenset({"GenerateAnswer"}), max_deadline_s=0.1, grace_s=8) as serving,
        channel_to(serving.lifecycle, serving.trust, default_timeout_s=None) as channel,
    ):
        with caller():
            call = pb_grpc.GeneratorServiceStub(channel).GenerateAnswer(pb.GenerateAnswerRequest())
            await call.read()
            started_s = loop.time()
            await serving.lifecycle.down()
            assert loop.time() - started_s < 5
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
    assert script.seen == [math.inf]
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert to_error(caught.value, "generator").reason == "DRAINING"


async def test_call_in_flight_ends_within_the_grace(serve: Any, script: Any) -> None:
    """A call that has begun when the server drains is answered."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_request: Any, _context: Any) -> Any:
        begun.set()
        await go_on.wait()
        return pb.CountTokensResponse(token_count=7)

    script.unary = slow
    async with serve(script, grace_s=5) as serving, channel_to(serving.lifecycle, serving.trust) as channel:
        with caller():
            call = pb_grpc.GeneratorServiceStub(channel).CountTokens(pb.CountTokensRequest())
            await begun.wait()
            down = asyncio.ensure_future(serving.lifecycle.down())
            asyncio.get_running_loop().call_later(0.1, go_on.set)
            assert (await call).token_count == 7
            await down


async def test_a_subscription_is_not_cut_amid_its_first_message(serve: Any, script: Any) -> None:
    """A stream that is writing its first message when the server drains still ends with UNAVAILABLE, and at once."""

    async def subscribe(_request: Any, _context: Any) -> AsyncIterator[Any]:
        while True:  # larger than what gRPC takes ahead of the reader: it waits to be read
            script.seen.append(current_budget().remaining_s())
            yield pb.GenerateAnswerResponse(token=pb.TokenDelta(text="x" * 2_000_000))

    script.stream = subscribe
    loop = asyncio.get_running_loop()
    async with (
        serve(script, long_lived=frozenset({"GenerateAnswer"}), grace_s=8) as serving,
        channel_to(serving.lifecycle, serving.trust, default_timeout_s=None) as channel,
    ):
        with caller():
            call = pb_grpc.GeneratorServiceStub(channel).GenerateAnswer(pb.GenerateAnswerRequest())
            while not script.seen:
                await asyncio.sleep(0.01)
            started_s = loop.time()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(serving.lifecycle.down())
                while not serving.lifecycle._server.interceptor._subscriptions._cut:
                    await asyncio.sleep(0.01)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await _read_on(call)
            assert loop.time() - started_s < 5
    assert to_error(caught.value, "generator").reason == "DRAINING"


async def _read_on(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass
