"""Who gets in, with which credential, to which method. Through real gRPC."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from binnacle.generator.v1 import generator_service_pb2 as pb
from binnacle.generator.v1 import generator_service_pb2_grpc as pb_grpc
from servicekit.rpc.api_keys import create_key, revoke_key
from servicekit.rpc.auth import Caller, current_caller
from servicekit.rpc.client import open_channel
from servicekit.rpc.status import to_error
from servicekit.testing.in_process import Trust, caller, channel_to

REQUEST = pb.CountTokensRequest()


async def outcome(channel: grpc.aio.Channel, **options: Any) -> tuple[grpc.StatusCode, str]:
    """The code and reason of one unary call."""
    try:
        await pb_grpc.GeneratorServiceStub(channel).CountTokens(REQUEST, **options)
    except grpc.aio.AioRpcError as exc:
        return exc.code(), to_error(exc, "generator", keep_unauthenticated=True).reason
    return grpc.StatusCode.OK, ""


def note_caller(script: Any) -> None:
    """Let the unary method note who calls."""

    async def note(_request: Any, _context: Any) -> Any:
        script.seen.append(current_caller())
        return pb.CountTokensResponse()

    script.unary = note


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "CREDENTIAL_MISSING"),
        ((("authorization", "Basic abc"),), "CREDENTIAL_MALFORMED"),
        ((("authorization", "Bearer "),), "CREDENTIAL_MALFORMED"),
        ((("x-api-key", "k" * 9000),), "CREDENTIAL_MALFORMED"),
        ((("authorization", "Bearer bk_unknown"),), "API_KEY_UNKNOWN"),
        ((("x-api-key", "bk_unknown"),), "API_KEY_UNKNOWN"),
        ((("x-api-key", "bk_a"), ("authorization", "Bearer bk_b")), "CREDENTIAL_AMBIGUOUS"),
        ((("authorization", "Bearer a.b.c"),), "CREDENTIAL_UNKNOWN"),
        ((("authorization", "Bearer ..."),), "CREDENTIAL_UNKNOWN"),
    ],
)
async def test_bad_credential_is_unauthenticated(
    serve: Any, script: Any, tmp_path: Path, metadata: Any, reason: str
) -> None:
    """From loopback too, a call without a valid credential is refused with the reason, and the servicer never runs."""
    note_caller(script)
    async with (
        serve(script, api_keys_file=tmp_path / "keys.json") as serving,
        grpc.aio.insecure_channel(serving.address) as channel,
    ):
        assert await outcome(channel, metadata=metadata) == (grpc.StatusCode.UNAUTHENTICATED, reason)
    assert script.seen == []


async def test_api_key_names_tenant_and_scopes(serve: Any, script: Any, tmp_path: Path) -> None:
    """An API key, sent either way, makes its tenant the caller; revoked, it is refused within a second."""
    note_caller(script)
    keys = tmp_path / "keys.json"
    record, secret = create_key(keys, tenant="acme", scopes=["generate", "search"])
    async with serve(script, api_keys_file=keys) as serving:
        async with open_channel(serving.address, audience="generator", api_key=secret) as channel:
            assert await outcome(channel) == (grpc.StatusCode.OK, "")
        async with grpc.aio.insecure_channel(serving.address) as channel:
            assert await outcome(channel, metadata=(("x-api-key", secret),)) == (grpc.StatusCode.OK, "")
            revoke_key(keys, record.id)
            serving.lifecycle.stack.authenticator._api_keys._checked_s = float("-inf")
            refusal = await outcome(channel, metadata=(("x-api-key", secret),))
    assert refusal == (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_REVOKED")
    assert script.seen == [Caller("acme", record.id, frozenset({"generate", "search"}))] * 2


async def test_missing_scope_is_permission_denied(serve: Any, script: Any) -> None:
    """A caller without the method's scope is told which one is missing."""
    async with serve(script) as serving, channel_to(serving.lifecycle, serving.trust) as channel:
        with caller(scopes=["search"]), pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb_grpc.GeneratorServiceStub(channel).CountTokens(REQUEST)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert to_error(caught.value, "generator").metadata["scope"] == "generate"


async def test_method_without_a_scope_is_closed(serve: Any, script: Any) -> None:
    """A method whose registration declares no scope is refused even to a caller with all of them."""
    async with (
        serve(script, scopes={"ListModels": "generate"}) as serving,
        channel_to(serving.lifecycle, serving.trust) as channel,
    ):
        with caller():
            refusal = await outcome(channel)
    assert refusal == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_UNDECLARED")


async def test_token_of_another_gateway_is_refused(serve: Any, script: Any, tmp_path: Path) -> None:
    """A token signed by a key that is not the gateway's does not verify."""
    stranger = Trust.create(tmp_path / "stranger")
    async with serve(script) as serving, channel_to(serving.lifecycle, stranger) as channel:
        with caller():
            assert await outcome(channel) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")


async def test_token_is_bound_to_its_audience(serve: Any, script: Any) -> None:
    """A token minted for one service does not open another."""
    async with (
        serve(script) as serving,
        open_channel(serving.address, audience="retriever", minter=serving.trust.minter()) as channel,
    ):
        with caller():
            refusal = await outcome(channel)
    assert refusal == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_WRONG_AUDIENCE")


async def test_token_carries_the_channels_scopes(serve: Any, script: Any) -> None:
    """A channel opened with scopes mints those, for the running caller's tenant and subject."""
    note_caller(script)
    async with serve(script) as serving:
        options = {"audience": "generator", "minter": serving.trust.minter(), "scopes": ["generate"]}
        async with open_channel(serving.address, **options) as channel:
            with caller(tenant="globex", subject="key_1", scopes=["answer"]):
                assert await outcome(channel) == (grpc.StatusCode.OK, "")
    assert script.seen == [Caller("globex", "key_1", frozenset({"generate"}))]


async def test_call_outside_of_any_caller_sends_no_token(serve: Any, script: Any) -> None:
    """Where no caller is known nothing is minted, and the service refuses."""
    async with serve(script) as serving, channel_to(serving.lifecycle, serving.trust) as channel:
        assert await outcome(channel) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_MISSING")


async def test_health_and_reflection_need_no_credential(serve: Any, script: Any) -> None:
    """Health answers per service name and for the empty one, reflection lists the services, to anyone."""
    async with serve(script) as serving, grpc.aio.insecure_channel(serving.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "binnacle.generator.v1.GeneratorService"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="no.such.Service"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        async for response in reflection.ServerReflectionInfo(iter([asked])):
            names = {service.name for service in response.list_services_response.service}
    assert {"binnacle.generator.v1.GeneratorService", "grpc.health.v1.Health"} <= names
