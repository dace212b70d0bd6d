"""Errors to statuses and back, whatever their texts hold."""

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from binnacle.type.v1 import generation_pb2
from servicekit.errors import BackendUnavailable, BinnacleError, InvalidRequest, Unauthenticated
from servicekit.rpc.status import STATUS_DETAILS, details_of, to_error, to_failure

ANY_TEXT = st.text(st.characters(), max_size=3000)


def as_rpc_error(
    code: grpc.StatusCode, details: str, trailers: tuple[tuple[str, str | bytes], ...]
) -> grpc.aio.AioRpcError:
    """What a client would see of this status."""
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), details)


@given(message=ANY_TEXT, field=ANY_TEXT, facts=st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3))
def test_any_text_crosses(message: str, field: str, facts: dict[str, str]) -> None:
    """Any text, surrogates too, becomes a status that reads back as the same kind of error."""
    error = InvalidRequest(message, field=field, reason="TOP_K", metadata=facts)
    failure = to_failure(error, service="retriever", request_id="r1")
    back = to_error(as_rpc_error(failure.code, failure.message, failure.trailers), "retriever")
    assert type(back) is InvalidRequest
    assert back.reason == "TOP_K"
    failure.message.encode()


@given(st.binary(max_size=200))
def test_foreign_details_are_survived(raw: bytes) -> None:
    """Details of a server that is not ours may be anything; the code still counts."""
    error = to_error(as_rpc_error(grpc.StatusCode.UNAVAILABLE, "away", ((STATUS_DETAILS, raw),)), "weaviate")
    assert isinstance(error, BackendUnavailable)
    assert "weaviate" in error.message


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_code_is_an_error_of_ours(code: grpc.StatusCode) -> None:
    """No code of a backend is left without a meaning here."""
    assert type(to_error(as_rpc_error(code, "why", ()), "x")) is not BinnacleError


def test_refused_credential_is_the_services_own() -> None:
    """Behind the gateway UNAUTHENTICATED means our token, not the caller's key; in the SDK it is the user's."""
    refused = as_rpc_error(grpc.StatusCode.UNAUTHENTICATED, "no", ())
    assert to_error(refused, "retriever").reason == "BACKEND_REFUSED_CREDENTIAL"
    assert isinstance(to_error(refused, "gateway", keep_unauthenticated=True), Unauthenticated)


def test_bare_base_error_is_internal() -> None:
    """An error that nobody placed in the tree shows nothing of itself."""
    failure = to_failure(BinnacleError("secret"), service="x", request_id="")
    assert failure.code is grpc.StatusCode.INTERNAL
    assert "secret" not in failure.message
    assert failure.error_id


def test_details_reach_the_caller_and_go_no_further() -> None:
    """A servicer's own details come back by their type; an error made from them carries none on."""
    error = BackendUnavailable("gone")
    tries = [generation_pb2.Attempt(number=number) for number in (1, 2)]
    error.details = tuple(tries)
    failure = to_failure(error, service="generator", request_id="")
    seen = as_rpc_error(failure.code, failure.message, failure.trailers)
    assert details_of(seen, generation_pb2.Attempt) == tries
    assert to_error(seen, "generator").details == ()


@given(st.binary(max_size=200))
def test_foreign_details_hold_no_messages_of_ours(raw: bytes) -> None:
    """Whatever a foreign server sends, nothing is read from it that is not there."""
    seen = as_rpc_error(grpc.StatusCode.UNAVAILABLE, "away", ((STATUS_DETAILS, raw),))
    assert details_of(seen, generation_pb2.Attempt) == []
