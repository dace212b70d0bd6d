"""Binnacle's errors in OpenAI's shape: status, type, code and parameter. Pure; used by `openai_api.py`."""

import re
from dataclasses import dataclass
from typing import Any

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

# The first class that matches counts: subclasses stand before their parents. Only models can be not found here.
_STATUSES: tuple[tuple[type[BinnacleError], int, str, str | None], ...] = (
    (ContextWindowExceeded, 400, "invalid_request_error", "context_length_exceeded"),
    (InvalidRequest, 400, "invalid_request_error", None),
    (Unauthenticated, 401, "authentication_error", "invalid_api_key"),
    (PermissionDenied, 403, "permission_error", None),
    (NotFound, 404, "invalid_request_error", "model_not_found"),
    (Conflict, 409, "conflict_error", None),
    (QuotaExceeded, 429, "insufficient_quota", "insufficient_quota"),
    (Overloaded, 429, "rate_limit_error", "rate_limit_exceeded"),
    (BackendUnavailable, 503, "service_unavailable_error", None),
    (NotReady, 503, "service_unavailable_error", None),
    (BackendTimeout, 504, "timeout_error", None),
)
_PARAMETERS = {
    "text": "messages",
    "history": "messages",
    "end_user_id": "user",
    "idempotency_key": "Idempotency-Key",
    "max_output_tokens": "max_tokens",
    "labels": "metadata",
    "output_schema": "response_format",
}
_TOP_LEVEL = frozenset({"messages", "user", "Idempotency-Key", "metadata", "model", "response_format"})


@dataclass(frozen=True, slots=True)
class HttpFailure:
    """A status, a body in OpenAI's shape, and headers."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


def to_http(error: Exception, *, error_id: str) -> HttpFailure:
    """What a caller gets; an unexpected error shows nothing but its id, which stands in the log."""
    if not isinstance(error, BinnacleError):
        text = f"internal error; the service's log tells more under the error id {error_id}"
        return HttpFailure(500, _body(text, "api_error", None, "internal_error"), {})
    status, kind, code = next(
        ((status, kind, code) for cls, status, kind, code in _STATUSES if isinstance(error, cls)),
        (500, "api_error", None),
    )
    headers: dict[str, str] = {}
    if isinstance(error, Overloaded):
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    field = error.field if isinstance(error, InvalidRequest) else ""
    parameter = parameter_of(field) if field else None
    message = error.message.replace(field, parameter) if field and parameter else error.message
    return HttpFailure(status, _body(message, kind, parameter, code or error.reason.lower()), headers)


def parameter_of(field: str) -> str:
    """The OpenAI parameter that a domain field came from: `question.history[2].content` → `messages[2].content`."""
    if field.startswith(("messages", "binnacle")):
        return field
    inner = field.removeprefix("question.")
    sampled = inner.startswith("sampling.")
    inner = inner.removeprefix("sampling.")
    match = re.match(r"\w+", inner)
    head = match.group() if match else inner
    name = _PARAMETERS.get(head, head)
    tail = inner[len(head) :]
    if field.startswith("question.") and not sampled and name not in _TOP_LEVEL:
        return f"binnacle.{name}{tail}"
    return f"{name}{tail}"


def _body(message: str, kind: str, parameter: str | None, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": parameter, "code": code}}
