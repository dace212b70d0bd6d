"""How a remote engine fails, in Binnacle's errors, the same for every adapter.

Used by the TGI and OpenAI-compatible adapters; messages name the engine and hold no part of a prompt.
"""

from http import HTTPStatus

from servicekit.errors import BackendTimeout, BackendUnavailable, BinnacleError, InvalidRequest, Overloaded

_MAX_DETAIL_CHARS = 300
_MAX_RETRY_AFTER_S = 3600.0
# What reading a frame raises when it is no JSON, or JSON of another shape.
MALFORMED = (ValueError, KeyError, TypeError, AttributeError)


def unreachable(address: str) -> BackendUnavailable:
    """No connection."""
    return BackendUnavailable(f"engine {address} cannot be reached", reason="CONNECT")


def stream_cut(address: str) -> BackendUnavailable:
    """The stream broke off, or ended in order without the last frame."""
    return BackendUnavailable(f"engine {address} ended its stream too early", reason="STREAM_CUT")


def nonsense(address: str) -> BackendUnavailable:
    """A frame or a body that cannot be read."""
    return BackendUnavailable(f"engine {address} sent what cannot be read", reason="MALFORMED_RESPONSE")


def failed(address: str) -> BackendUnavailable:
    """The engine says that generating failed."""
    return BackendUnavailable(f"engine {address} failed to generate", reason="GENERATION_FAILED")


def unhealthy(address: str) -> BackendUnavailable:
    """The engine says that it is not well; it has not begun to work."""
    return BackendUnavailable(f"engine {address} is not healthy", reason="ENGINE_UNHEALTHY")


def timed_out(address: str) -> BackendTimeout:
    """The engine, or a proxy before it, ran out of time."""
    return BackendTimeout(f"engine {address} did not answer in time", reason="ENGINE_TIMEOUT")


def overloaded(address: str, retry_after: str | None = None) -> Overloaded:
    """The engine refuses for load; `retry_after` is the header of that name."""
    return Overloaded(
        f"engine {address} is overloaded", retry_after_s=_seconds(retry_after), reason="ENGINE_OVERLOADED"
    )


def refused(address: str, detail: str) -> InvalidRequest:
    """The engine finds fault with the request."""
    return InvalidRequest(
        f"engine {address} refused the request: {detail[:_MAX_DETAIL_CHARS]}", reason="ENGINE_REFUSED"
    )


def of_status(address: str, status: int, *, retry_after: str | None = None, detail: str = "") -> BinnacleError:
    """The error for an HTTP status of 400 or more."""
    match status:
        case HTTPStatus.TOO_MANY_REQUESTS:
            return overloaded(address, retry_after)
        case HTTPStatus.BAD_REQUEST | HTTPStatus.UNPROCESSABLE_ENTITY | HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return refused(address, detail or f"HTTP {status}")
        case HTTPStatus.REQUEST_TIMEOUT | HTTPStatus.GATEWAY_TIMEOUT:
            return timed_out(address)
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return BackendUnavailable(f"engine {address} refused our key", reason="ENGINE_CREDENTIAL")
        case _:
            return BackendUnavailable(f"engine {address} answered HTTP {status}", reason="ENGINE_FAILED")


def _seconds(retry_after: str | None) -> float:
    """The header's delay, 1 s where it gives none or a date."""
    try:
        return min(max(float(retry_after or 1), 0.0), _MAX_RETRY_AFTER_S)
    except ValueError:
        return 1.0
