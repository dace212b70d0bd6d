"""Errors as gRPC statuses and back: code, ErrorInfo, BadRequest, RetryInfo, request id in the trailers.

Written by the RPC server's interceptor, read by `services.*.clients` and by the SDK. Table: `servicekit.errors`.
"""

import uuid
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # ships no marker

from servicekit.errors import (
    BackendTimeout,
    BackendUnavailable,
    BinnacleError,
    Conflict,
    ContextWindowExceeded,
    InvalidRequest,
    NotFound,
    NotReady,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    Unauthenticated,
)
from servicekit.telemetry.correlation import REQUEST_ID_METADATA

STATUS_DETAILS = "grpc-status-details-bin"
INTERNAL_TEXT = "internal error; the service's log tells more under this error id"
_MAX_MESSAGE_CHARS = 2048

_M = TypeVar("_M", bound=Message)

# The first class that matches counts: subclasses stand with their parents.
_CODES: tuple[tuple[type[BinnacleError], grpc.StatusCode], ...] = (
    (InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (PermissionDenied, grpc.StatusCode.PERMISSION_DENIED),
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (NotReady, grpc.StatusCode.FAILED_PRECONDITION),
    (Conflict, grpc.StatusCode.ABORTED),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (BackendUnavailable, grpc.StatusCode.UNAVAILABLE),
    (BackendTimeout, grpc.StatusCode.DEADLINE_EXCEEDED),
)
_KINDS = {code: kind for kind, code in _CODES} | {
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
}
_SUBCLASSES: dict[str, type[BinnacleError]] = {
    kind.default_reason: kind for kind in (ContextWindowExceeded, QuotaExceeded)
}


@dataclass(frozen=True, slots=True)
class RpcFailure:
    """What a failed call ends with; `error_id` is set for the unexpected only, and stands in the log."""

    code: grpc.StatusCode
    message: str
    reason: str
    trailers: tuple[tuple[str, str | bytes], ...]
    error_id: str = ""


def code_of(error: BinnacleError) -> grpc.StatusCode:
    """The status of an expected error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def to_failure(error: BaseException, *, service: str, request_id: str) -> RpcFailure:
    """The status, details and trailers of any exception; an unexpected one shows nothing of itself."""
    if isinstance(error, BinnacleError) and code_of(error) is not grpc.StatusCode.INTERNAL:
        return _pack(error, code_of(error), service=service, request_id=request_id)
    error_id = uuid.uuid4().hex
    hidden = BinnacleError(INTERNAL_TEXT, reason="INTERNAL", metadata={"error_id": error_id})
    packed = _pack(hidden, grpc.StatusCode.INTERNAL, service=service, request_id=request_id)
    return RpcFailure(packed.code, packed.message, packed.reason, packed.trailers, error_id)


def _pack(error: BinnacleError, code: grpc.StatusCode, *, service: str, request_id: str) -> RpcFailure:
    message = _wire_text(error.message)
    status = status_pb2.Status(code=code.value[0], message=message)
    metadata = {_wire_text(key): _wire_text(value) for key, value in error.metadata.items()}
    details: list[Any] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=f"{service}.binnacle", metadata=metadata)
    ]
    if isinstance(error, InvalidRequest) and error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_wire_text(error.field), description=message, reason=error.reason
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, Overloaded):
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    for detail in (*details, *error.details):
        status.details.add().Pack(detail)
    trailers: tuple[tuple[str, str | bytes], ...] = ((STATUS_DETAILS, status.SerializeToString()),)
    if request_id:
        trailers = (*trailers, (REQUEST_ID_METADATA, request_id))
    return RpcFailure(code, message, error.reason, trailers)


def _wire_text(text: str) -> str:
    """Text that every encoder on the way accepts: bounded, no lone surrogates."""
    return text[:_MAX_MESSAGE_CHARS].encode("utf-8", "replace").decode()


def to_error(error: grpc.aio.AioRpcError, backend: str, *, keep_unauthenticated: bool = False) -> BinnacleError:
    """The error that a failed call to `backend` stands for, its reason and fields kept; raise it `from error`.

    A refused credential is the service's own, not its caller's, hence BackendUnavailable, unless
    `keep_unauthenticated` (the SDK, whose credential is the user's).
    """
    code, detail = error.code(), _unpack(error)
    common: dict[str, Any] = {"reason": detail.reason or None, "metadata": dict(detail.metadata)}
    if code is grpc.StatusCode.UNAUTHENTICATED and not keep_unauthenticated:
        common["reason"] = "BACKEND_REFUSED_CREDENTIAL"
        return BackendUnavailable(f"{backend} refuses this service's credential", **common)
    kind = _SUBCLASSES.get(detail.reason) or _KINDS.get(code)
    if kind is None:
        common["reason"] = detail.reason or "BACKEND_FAILED"
        return BackendUnavailable(f"{backend} failed with {code.name}: {detail.message}", **common)
    message = detail.message
    if issubclass(kind, InvalidRequest):
        common["field"] = detail.field
    elif issubclass(kind, Overloaded):
        common["retry_after_s"] = detail.retry_after_s
    elif issubclass(kind, BackendTimeout):
        message = f"{backend} did not answer in time"
    elif issubclass(kind, BackendUnavailable):
        message = f"{backend} cannot be reached: {message}"
    return kind(message, **common)


def details_of(error: grpc.aio.AioRpcError, message_type: type[_M]) -> list[_M]:
    """The messages of this type that came with a failed call's status, in their order."""
    found = []
    for entry in _entries(error):
        message = message_type()
        try:
            if entry.Unpack(message):
                found.append(message)
        except DecodeError:  # details of a foreign server may be anything
            continue
    return found


@dataclass(slots=True)
class _Detail:
    message: str
    reason: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    field: str = ""
    retry_after_s: float = 1.0


def _unpack(error: grpc.aio.AioRpcError) -> _Detail:
    detail = _Detail(message=error.details() or error.code().name)
    try:
        for entry in _entries(error):
            _read_detail(entry, detail)
    except DecodeError:  # details of a foreign server may be anything
        return detail
    return detail


def _entries(error: grpc.aio.AioRpcError) -> list[PackedAny]:
    raw = next((value for name, value in error.trailing_metadata() or () if name == STATUS_DETAILS), None)
    if not isinstance(raw, bytes):
        return []
    try:
        return list(status_pb2.Status.FromString(raw).details)
    except DecodeError:  # of a foreign server
        return []


def _read_detail(entry: PackedAny, detail: _Detail) -> None:
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    if entry.Unpack(info):
        detail.reason, detail.metadata = info.reason, tuple(info.metadata.items())
    elif entry.Unpack(bad) and bad.field_violations:
        detail.field = bad.field_violations[0].field
    elif entry.Unpack(retry):
        detail.retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
