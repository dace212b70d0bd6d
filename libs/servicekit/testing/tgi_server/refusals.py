"""The answers of TGI that are errors, in TGI's words (router of version 3).

Raised by the modules that check, answered by `server.py` and, inside streams, by `answering.py`.
"""

from http import HTTPStatus

from servicekit.testing.tgi_server.dials import Fault


class Refusal(Exception):  # noqa: N818  # an answer of the server, not a failure of it
    """An error as TGI words it; without an `error_type` it is plain text, as its web framework answers."""

    def __init__(self, status: HTTPStatus, error_type: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.message = message

    @property
    def body(self) -> dict[str, str]:
        """The JSON of `/generate`, and the frame of `/generate_stream`."""
        return {"error": self.message, "error_type": self.error_type}


def invalid(message: str) -> Refusal:
    """A failed validation: 422, inside a stream too (as a frame of HTTP 200)."""
    return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "validation", f"Input validation error: {message}")


def unreadable(message: str) -> Refusal:
    """JSON of the wrong shape: refused before any route runs, as plain text, never inside a stream."""
    told = f"Failed to deserialize the JSON body into the target type: {message}"
    return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "", told)


def no_tools(message: str) -> Refusal:
    """Tool calling, which this server leaves out."""
    return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "tool_error", f"Tool error: {message}")


OVERLOADED = Refusal(HTTPStatus.TOO_MANY_REQUESTS, "overloaded", "Model is overloaded")
FAILED = Refusal(HTTPStatus.FAILED_DEPENDENCY, "generation", "Request failed during generation: out of memory")
INCOMPLETE = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "incomplete_generation", "Incomplete generation")
INCOMPLETE_STREAM = Refusal(
    HTTPStatus.INTERNAL_SERVER_ERROR, "incomplete_generation_stream", "Incomplete generation stream"
)
UNHEALTHY = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "healthcheck", "unhealthy")
UNAUTHORIZED = Refusal(HTTPStatus.UNAUTHORIZED, "", "")


def refuse_at_start(fault: Fault) -> None:
    """Raise what the fault answers before any token."""
    if fault is Fault.REFUSE:
        raise OVERLOADED
    if fault is Fault.INVALID:
        raise invalid("the dials say so")
    if fault is Fault.UNAVAILABLE:
        raise UNHEALTHY
