"""What outgoing calls carry and when they are tried again. Through real gRPC."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from binnacle.generator.v1 import generator_service_pb2 as pb
from binnacle.generator.v1 import generator_service_pb2_grpc as pb_grpc
from servicekit.errors import BackendUnavailable
from servicekit.rpc.client import open_channel, service_config
from servicekit.telemetry.correlation import correlated, current_request_id, name_request
from servicekit.telemetry.tracing import current_trace_id, current_traceparent, span
from servicekit.testing.in_process import caller, channel_to

SERVICE = "binnacle.generator.v1.GeneratorService"


async def test_trace_and_request_id_travel(serve: Any, script: Any) -> None:
    """The callee runs in the caller's trace, in its own span, under the caller's request id; the trailers say so."""

    async def note(_request: Any, _context: Any) -> Any:
        script.seen.append((current_trace_id(), current_traceparent(), current_request_id()))
        return pb.CountTokensResponse()

    script.unary = note
    async with serve(script) as serving, channel_to(serving.lifecycle, serving.trust) as channel:
        with caller(), correlated("req-7"), span("outer"):
            outer_trace, outer_parent = current_trace_id(), current_traceparent()
            call = pb_grpc.GeneratorServiceStub(channel).CountTokens(pb.CountTokensRequest())
            await call
            trailers = dict(list(await call.trailing_metadata()))
    [(trace_id, traceparent, request_id)] = script.seen
    assert trace_id == outer_trace
    assert traceparent != outer_parent
    assert request_id == trailers["x-request-id"] == "req-7"


async def test_call_gets_a_request_id_and_may_be_renamed(serve: Any, script: Any) -> None:
    """Without a given id (or with an odd one) the server makes one; a servicer that names the request renames it."""

    async def rename(_request: Any, _context: Any) -> Any:
        script.seen.append(current_request_id())
        name_request("signed-id")
        return pb.CountTokensResponse()

    script.unary = rename
    async with serve(script) as serving, channel_to(serving.lifecycle, serving.trust) as channel:
        with caller():
            stub = pb_grpc.GeneratorServiceStub(channel)
            call = stub.CountTokens(pb.CountTokensRequest(), metadata=(("x-request-id", "a b\\" * 50),))
            await call
            trailers = dict(list(await call.trailing_metadata()))
    assert len(script.seen[0]) == 36
    assert trailers["x-request-id"] == "signed-id"


async def test_only_unavailable_of_idempotent_methods_is_retried(serve: Any, script: Any) -> None:
    """UNAVAILABLE is tried again where the channel was told that it may, and nowhere else."""

    async def fail_twice(_request: Any, _context: Any) -> Any:
        script.seen.append("CountTokens")
        if len(script.seen) < 3:
            raise BackendUnavailable("away")
        return pb.CountTokensResponse()

    async def fail(_request: Any, _context: Any) -> Any:
        script.seen.append("ListModels")
        raise BackendUnavailable("away")

    script.unary, script.listing = fail_twice, fail
    async with (
        serve(script) as serving,
        channel_to(serving.lifecycle, serving.trust, idempotent=[f"{SERVICE}/CountTokens"]) as channel,
    ):
        stub = pb_grpc.GeneratorServiceStub(channel)
        with caller():
            await stub.CountTokens(pb.CountTokensRequest())
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.ListModels(pb.ListModelsRequest())
    assert script.seen == ["CountTokens"] * 3 + ["ListModels"]


async def test_streaming_call_is_grpcs_own(serve: Any, script: Any) -> None:
    """A stream through the channel reads, cancels and tells its code like any other."""

    async def count(_request: Any, _context: Any) -> AsyncIterator[Any]:
        for number in range(1000):
            yield pb.GenerateAnswerResponse(token=pb.TokenDelta(text=str(number)))
            await asyncio.sleep(0)

    script.stream = count
    async with serve(script) as serving, channel_to(serving.lifecycle, serving.trust) as channel:
        stub = pb_grpc.GeneratorServiceStub(channel)
        with caller():
            texts = [message.token.text async for message in stub.GenerateAnswer(pb.GenerateAnswerRequest())]
            assert texts == [str(number) for number in range(1000)]
            script.ended.clear()
            call = stub.GenerateAnswer(pb.GenerateAnswerRequest())
            await call.read()
            call.cancel()
            async with asyncio.timeout(5):
                await script.ended.wait()
            assert await call.code() is grpc.StatusCode.CANCELLED


async def test_calls_are_spread_over_replicas(serve: Any, trust: Any, script: Any) -> None:
    """Every address behind a target is used in turn."""
    other = type(script)()
    for name, one in (("a", script), ("b", other)):

        async def note(_request: Any, _context: Any, name: str = name) -> Any:
            script.seen.append(name)
            return pb.CountTokensResponse()

        one.unary = note
    async with serve(script) as first, serve(other) as second:
        target = f"ipv4:{first.address},{second.address}"
        async with open_channel(target, audience="generator", minter=trust.minter()) as channel:
            stub = pb_grpc.GeneratorServiceStub(channel)
            with caller():
                async with asyncio.timeout(10):
                    while set(script.seen) != {"a", "b"}:
                        await stub.CountTokens(pb.CountTokensRequest())
                script.seen.clear()
                for _ in range(10):
                    await stub.CountTokens(pb.CountTokensRequest())
    assert script.seen.count("a") == script.seen.count("b") == 5


async def test_channel_finds_a_restarted_server(serve: Any, script: Any) -> None:
    """After the server is gone and back on its port, calls on the old channel work again within seconds."""
    async with serve(script) as serving:
        port = serving.lifecycle.port
    async with open_channel(f"127.0.0.1:{port}", audience="generator", minter=serving.trust.minter()) as channel:
        stub = pb_grpc.GeneratorServiceStub(channel)
        with caller(), pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CountTokens(pb.CountTokensRequest())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        async with serve(script, port=port):
            with caller():
                await stub.CountTokens(pb.CountTokensRequest(), wait_for_ready=True, timeout=8)


def test_service_config_names_only_what_it_may_retry() -> None:
    """Without idempotent methods there is no retry policy at all."""
    assert "methodConfig" not in json.loads(service_config(()))
    [config] = json.loads(service_config(["a.b.C/D"]))["methodConfig"]
    assert config["name"] == [{"service": "a.b.C", "method": "D"}]
    assert config["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]


async def test_reconnects_are_at_most_a_second_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel waits a second at most between attempts to connect, so that a restarted service is found soon."""
    given: dict[str, Any] = {}
    open_inner = grpc.aio.insecure_channel

    def note(target: str, options: Any) -> grpc.aio.Channel:
        given.update(options)
        return open_inner(target, options)

    monkeypatch.setattr(grpc.aio, "insecure_channel", note)
    async with open_channel("127.0.0.1:1", audience="generator"):
        pass
    assert given["grpc.max_reconnect_backoff_ms"] == 1_000
    assert given["grpc.min_reconnect_backoff_ms"] <= 500
    assert given["grpc.dns_min_time_between_resolutions_ms"] <= 1_000


async def test_a_new_channel_does_not_inherit_the_back_off_of_another(serve: Any, script: Any, trust: Any) -> None:
    """Where a port failed a moment ago and is used again, a channel opened now connects now."""

    async def answer(_request: Any, _context: Any) -> Any:
        return pb.CountTokensResponse()

    script.unary = answer
    async with serve(script) as serving:
        port = serving.lifecycle.port
    async with channel_to(serving.lifecycle, trust) as waiting:
        while waiting.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            await asyncio.sleep(0.01)
        await asyncio.sleep(2.0)  # attempts are now most of a second apart
        async with serve(script, port=port) as again, channel_to(again.lifecycle, again.trust) as fresh:
            with caller():
                await pb_grpc.GeneratorServiceStub(fresh).CountTokens(pb.CountTokensRequest())
