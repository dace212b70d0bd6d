"""Errors as text-embeddings-inference words them: `{"error", "error_type"}` under the status of the type.

Raised by the routes, written by `server.py`.
"""

from http import HTTPStatus
from typing import Any

_STATUSES = {
    "Unhealthy": HTTPStatus.SERVICE_UNAVAILABLE,
    "Backend": HTTPStatus.FAILED_DEPENDENCY,
    "Overloaded": HTTPStatus.TOO_MANY_REQUESTS,
    "Validation": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "Tokenizer": HTTPStatus.UNPROCESSABLE_ENTITY,
    "Empty": HTTPStatus.BAD_REQUEST,
}


class Refusal(Exception):  # noqa: N818  # it is an answer, not a fault of the server
    """An error response."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.status = _STATUSES[error_type]
        self.error_type = error_type
        self.message = message

    def body(self, *, compatible: bool) -> dict[str, Any]:
        """The body; the OpenAI-compatible route has names of its own."""
        if compatible:
            return {"message": self.message, "code": self.status.value, "type": self.error_type}
        return {"error": self.message, "error_type": self.error_type}
