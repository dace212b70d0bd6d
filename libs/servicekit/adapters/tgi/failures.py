"""Turns what a TGI node answers, or its HTTP client raises, into Binnacle's errors. Used by `engine.py`."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import httpx2
import msgspec

from servicekit.adapters import engine_failures as failures
from servicekit.errors import BinnacleError

_REQUEST_FAULTS = frozenset({"validation", "template_error", "tool_error"})


def to_error(address: str, error: Exception) -> BinnacleError:
    """The error of the engine port for what the client raised."""
    match error:
        case httpx2.HTTPStatusError():
            return of_answer(address, error.response)
        case httpx2.ConnectError() | httpx2.ConnectTimeout():
            return failures.unreachable(address)
        case TimeoutError() | httpx2.TimeoutException():
            return failures.timed_out(address)
        case httpx2.TransportError():
            return failures.stream_cut(address)
        case _:
            return failures.nonsense(address)


def of_answer(address: str, response: httpx2.Response) -> BinnacleError:
    """For an answer of status 400 or more, its body read: typed as in a stream, else by its status."""
    try:
        body = msgspec.json.decode(response.content)
    except msgspec.DecodeError:
        body = None
    if isinstance(body, Mapping) and response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY:
        return failures.refused(address, str(body.get("error") or "HTTP 422"))
    return failures.of_status(address, response.status_code, retry_after=response.headers.get("retry-after"))


def of_frame(address: str, text: str, error_type: str) -> BinnacleError:
    """For an error inside a stream of the generate routes, which have the status 200."""
    if error_type == "overloaded":
        return failures.overloaded(address)
    if error_type in _REQUEST_FAULTS:
        return failures.refused(address, text)
    if error_type == "healthcheck":
        return failures.unhealthy(address)
    return failures.failed(address)


def of_chat_frame(address: str, error: Any) -> BinnacleError:
    """For an error inside a stream of the chat route, which tells all of them as 422: only the text differs."""
    text = str(error.get("message") or "") if isinstance(error, Mapping) else str(error)
    if "overloaded" in text.lower():
        return failures.overloaded(address)
    if "validation error" in text.lower() or "template error" in text.lower():
        return failures.refused(address, text)
    if "unhealthy" in text.lower():
        return failures.unhealthy(address)
    return failures.failed(address)
