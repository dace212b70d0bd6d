"""Turns what huggingface_hub and its HTTP client raise into Binnacle's errors. Used by `engine.py`."""

import httpx2
from huggingface_hub.errors import (
    HfHubHTTPError,
    InferenceTimeoutError,
    OverloadedError,
    TextGenerationError,
    ValidationError,
)

from servicekit.adapters import engine_failures as failures
from servicekit.errors import BinnacleError


def to_error(address: str, error: Exception) -> BinnacleError:
    """The error of the engine port for what the client raised."""
    if isinstance(error, InferenceTimeoutError) and isinstance(error.__cause__, httpx2.TimeoutException):
        error = error.__cause__
    match error:
        case TextGenerationError():
            return _of_frame(address, error)
        case HfHubHTTPError() | httpx2.HTTPStatusError():
            retry_after = error.response.headers.get("retry-after")
            return failures.of_status(address, error.response.status_code, retry_after=retry_after)
        case httpx2.TransportError():
            return _of_transport(address, error)
        case _:
            return failures.nonsense(address)


def _of_frame(address: str, error: TextGenerationError) -> BinnacleError:
    """For an error with its `error_type`, in a body or inside a stream."""
    match error:
        case OverloadedError():
            return failures.overloaded(address)
        case ValidationError():
            return failures.refused(address, str(error))
        case _ if "unhealthy" in str(error):
            return failures.unhealthy(address)
        case _:
            return failures.failed(address)


def _of_transport(address: str, error: httpx2.TransportError) -> BinnacleError:
    match error:
        case httpx2.ConnectError() | httpx2.ConnectTimeout():
            return failures.unreachable(address)
        case httpx2.TimeoutException():
            return failures.timed_out(address)
        case _:
            return failures.stream_cut(address)
