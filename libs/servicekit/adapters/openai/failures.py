"""Turns what the `openai` package raises into Binnacle's errors. Used by `engine.py`."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import httpx2
import openai

from servicekit.adapters import engine_failures as failures
from servicekit.errors import BinnacleError

_REQUEST_FAULTS = frozenset({"invalid_request_error", "BadRequestError"})


def to_error(address: str, error: Exception) -> BinnacleError:
    """The error of the engine port for what the client raised."""
    match error:
        case openai.APIStatusError():
            retry_after = error.response.headers.get("retry-after")
            return failures.of_status(address, error.status_code, retry_after=retry_after, detail=_detail(error.body))
        case openai.APITimeoutError():
            connecting = isinstance(error.__cause__, httpx2.ConnectTimeout)
            return failures.unreachable(address) if connecting else failures.timed_out(address)
        case openai.APIConnectionError():
            connecting = isinstance(error.__cause__, httpx2.ConnectError)
            return failures.unreachable(address) if connecting else failures.stream_cut(address)
        case TimeoutError() | httpx2.TimeoutException():
            return failures.timed_out(address)
        case httpx2.TransportError():
            return failures.stream_cut(address)
        case _:
            return failures.nonsense(address)


def of_frame(address: str, error: Any) -> BinnacleError:
    """For an error inside a stream, which names its status in various ways, if at all."""
    body: Mapping[str, Any] = error if isinstance(error, Mapping) else {"message": str(error)}
    text = str(body.get("message") or "")
    code = str(body.get("code") or body.get("http_status_code") or "")
    if "overloaded" in text.lower() or code == str(HTTPStatus.TOO_MANY_REQUESTS.value):
        return failures.overloaded(address)
    if "validation error" in text.lower() or body.get("type") in _REQUEST_FAULTS or body.get("code") in (400, 422):
        return failures.refused(address, text)
    if "unhealthy" in text.lower():
        return failures.unhealthy(address)
    return failures.failed(address)


def _detail(body: object) -> str:
    if not isinstance(body, Mapping):
        return ""
    nested = body.get("error", body)
    return str(nested.get("message", "") if isinstance(nested, Mapping) else nested)
