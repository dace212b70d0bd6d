"""What every call gets, whatever its servicer does: statuses, details, trailers. Through real gRPC."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from binnacle.generator.v1 import generator_service_pb2 as pb
from binnacle.generator.v1 import generator_service_pb2_grpc as pb_grpc
from servicekit import errors
from servicekit.rpc.status import to_error
from servicekit.testing.in_process import caller, channel_to

CASES = [
    (errors.InvalidRequest("top_k must be 1..100, got -1", field="top_k"), grpc.StatusCode.INVALID_ARGUMENT),
    (errors.ContextWindowExceeded("too long", field="question"), grpc.StatusCode.INVALID_ARGUMENT),
    (errors.PermissionDenied("no"), grpc.StatusCode.PERMISSION_DENIED),
    (errors.NotFound("no such document", metadata={"document_id": "d"}), grpc.StatusCode.NOT_FOUND),
    (errors.NotReady("not yet"), grpc.StatusCode.FAILED_PRECONDITION),
    (errors.Conflict("in flight"), grpc.StatusCode.ABORTED),
    (errors.Overloaded("busy", retry_after_s=2.5), grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.QuotaExceeded("used up", retry_after_s=60), grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.BackendUnavailable("away", reason="CONNECT"), grpc.StatusCode.UNAVAILABLE),
    (errors.BackendTimeout("late"), grpc.StatusCode.DEADLINE_EXCEEDED),
]


def raising(error: BaseException) -> Callable[..., Any]:
    """A method that raises."""

    async def behave(_request: Any, _context: Any) -> Any:
        raise error

    return behave


async def refused(call: Any) -> grpc.aio.AioRpcError:
    """The error that ends the call."""

    async def finish() -> None:
        if not hasattr(call, "__aiter__"):
            await call
            return
        async for _ in call:
            pass

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await finish()
    return caught.value


def trailers_of(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """The trailers by name."""
    return dict(list(error.trailing_metadata()))


@pytest.mark.parametrize(("error", "code"), CASES, ids=lambda value: type(value).__name__)
async def test_error_crosses_the_wire(serve: Any, script: Any, error: Any, code: Any) -> None:
    """An error raised by a servicer arrives with its code and turns back into itself on the other side."""
    script.unary = raising(error)
    async with serve(script) as serving, channel_to(serving.lifecycle, serving.trust) as channel:
        with caller():
            failure = await refused(pb_grpc.GeneratorServiceStub(channel).CountTokens(pb.CountTokensRequest()))
    assert failure.code() is code
    assert trailers_of(failure)["x-request-id"]
    back = to_error(failure, "generator")
    assert type(back) is type(error)
    assert (back.reason, back.metadata) == (error.reason, error.metadata)
    assert getattr(back, "field", "") == getattr(error, "field", "")
    assert getattr(back, "retry_after_s", 0) == getattr(error, "retry_after_s", 0)


async def test_unexpected_error_shows_nothing_of_itself(serve: Any, script: Any) -> None:
    """A bug reaches the caller as INTERNAL with fixed text and an error id that the log repeats."""
    script.unary = raising(ValueError("the password is hunter2"))
    with capture_logs() as lines:
        async with serve(script) as serving, channel_to(serving.lifecycle, serving.trust) as channel:
            with caller():
                failure = await refused(pb_grpc.GeneratorServiceStub(channel).CountTokens(pb.CountTokensRequest()))
    assert failure.code() is grpc.StatusCode.INTERNAL
    assert "hunter2" not in str(failure)
    error_id = to_error(failure, "generator").metadata["error_id"]
    logged = [line for line in lines if line["event"] == "rpc.unexpected"]
    assert [line["error_id"] for line in logged] == [error_id]
    assert isinstance(logged[0]["exc_info"], ValueError)


async def test_stream_that_fails_midway_keeps_what_was_sent(serve: Any, script: Any) -> None:
    """A streaming call delivers its messages, then the mapped error with its details."""

    async def stream(_request: Any, _context: Any) -> AsyncIterator[Any]:
        yield pb.GenerateAnswerResponse(token=pb.TokenDelta(text="a"))
        raise errors.Overloaded("busy", retry_after_s=3)

    script.stream = stream
    async with serve(script) as serving, channel_to(serving.lifecycle, serving.trust) as channel:
        with caller():
            call = pb_grpc.GeneratorServiceStub(channel).GenerateAnswer(pb.GenerateAnswerRequest())
            first = await call.read()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
    assert first.token.text == "a"
    back = to_error(caught.value, "generator")
    assert isinstance(back, errors.Overloaded)
    assert back.retry_after_s == 3


@pytest.mark.parametrize("rubbish", [b"\xff\xff\xff", b"\x0a\x02\xc3\x28"], ids=["no message", "wrong UTF-8"])
@pytest.mark.parametrize("method", ["CountTokens", "GenerateAnswer"])
async def test_rubbish_is_the_callers_mistake(serve: Any, script: Any, method: str, rubbish: bytes) -> None:
    """Bytes that are no message, or strings that are no UTF-8, are INVALID_ARGUMENT; the next call works."""
    async with serve(script) as serving, channel_to(serving.lifecycle, serving.trust) as channel:
        path = f"/binnacle.generator.v1.GeneratorService/{method}"
        make = channel.unary_unary if method == "CountTokens" else channel.unary_stream
        with caller():
            failure = await refused(make(path)(rubbish))
            assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert to_error(failure, "generator").reason == "MALFORMED_MESSAGE"
            await pb_grpc.GeneratorServiceStub(channel).CountTokens(pb.CountTokensRequest())


async def test_wrong_return_value_is_internal(serve: Any, script: Any) -> None:
    """A servicer that returns something that cannot be encoded fails like any other bug."""

    async def wrong(_request: Any, _context: Any) -> Any:
        return "no message"

    script.unary = wrong
    async with serve(script) as serving, channel_to(serving.lifecycle, serving.trust) as channel:
        with caller():
            failure = await refused(pb_grpc.GeneratorServiceStub(channel).CountTokens(pb.CountTokensRequest()))
    assert failure.code() is grpc.StatusCode.INTERNAL
    assert "error_id" in to_error(failure, "generator").metadata


async def test_message_beyond_the_bound_is_refused(serve: Any, script: Any) -> None:
    """A message larger than the server's bound is RESOURCE_EXHAUSTED, and the next call works."""
    async with (
        serve(script, max_message_bytes=4096) as serving,
        channel_to(serving.lifecycle, serving.trust) as channel,
    ):
        stub = pb_grpc.GeneratorServiceStub(channel)
        with caller():
            failure = await refused(stub.GenerateAnswer(pb.GenerateAnswerRequest(question="x" * 5000)))
            assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            await stub.CountTokens(pb.CountTokensRequest())


async def test_message_text_may_hold_anything(serve: Any, script: Any) -> None:
    """Line breaks, other scripts, lone surrogates and great length in a message break no status."""
    script.unary = raising(errors.NotFound("no “ключ”\n\ud800 " + "x" * 5000))
    async with serve(script) as serving, channel_to(serving.lifecycle, serving.trust) as channel:
        with caller():
            failure = await refused(pb_grpc.GeneratorServiceStub(channel).CountTokens(pb.CountTokensRequest()))
    assert failure.code() is grpc.StatusCode.NOT_FOUND
    assert (failure.details() or "").startswith("no “ключ”")
    assert len(failure.details() or "") <= 2048


async def test_cancelled_call_stays_cancelled(serve: Any, script: Any) -> None:
    """A caller that goes away ends the servicer, which sees a cancellation and nothing else."""
    begun, outcome = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def wait(_request: Any, _context: Any) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        except BaseException as exc:
            outcome.set_result(type(exc))
            raise

    script.unary = wait
    with capture_logs() as lines:
        async with serve(script) as serving, channel_to(serving.lifecycle, serving.trust) as channel:
            with caller():
                call = pb_grpc.GeneratorServiceStub(channel).CountTokens(pb.CountTokensRequest())
                await begun.wait()
                call.cancel()
                assert await outcome is asyncio.CancelledError
    assert [line["code"] for line in lines if line["event"] == "rpc.completed"] == ["CANCELLED"]


async def test_spurious_cancellation_is_a_bug(serve: Any, script: Any) -> None:
    """A servicer that lets an inner cancellation out while its caller waits answers INTERNAL."""
    script.unary = raising(asyncio.CancelledError())
    async with serve(script) as serving, channel_to(serving.lifecycle, serving.trust) as channel:
        with caller():
            failure = await refused(pb_grpc.GeneratorServiceStub(channel).CountTokens(pb.CountTokensRequest()))
    assert failure.code() is grpc.StatusCode.INTERNAL


async def test_too_many_calls_at_once_are_refused(serve: Any, script: Any) -> None:
    """Beyond the server's bound a call is RESOURCE_EXHAUSTED; once one has ended there is room again."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_request: Any, _context: Any) -> Any:
        begun.set()
        await go_on.wait()
        return pb.CountTokensResponse()

    script.unary = wait
    async with (
        serve(script, max_concurrent_rpcs=1) as serving,
        channel_to(serving.lifecycle, serving.trust) as channel,
    ):
        stub = pb_grpc.GeneratorServiceStub(channel)
        with caller():
            first = stub.CountTokens(pb.CountTokensRequest())
            await begun.wait()
            failure = await refused(stub.ListModels(pb.ListModelsRequest()))
            go_on.set()
            await first
            async with asyncio.timeout(5):  # the place is given back a moment after the answer
                while await stub.ListModels(pb.ListModelsRequest()).code() is not grpc.StatusCode.OK:
                    pass
    assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_unknown_method_is_unimplemented(serve: Any, script: Any) -> None:
    """A method that does not exist is UNIMPLEMENTED."""
    async with serve(script) as serving, channel_to(serving.lifecycle, serving.trust) as channel:
        with caller():
            failure = await refused(channel.unary_unary("/binnacle.generator.v1.GeneratorService/Nope")(b""))
    assert failure.code() is grpc.StatusCode.UNIMPLEMENTED
