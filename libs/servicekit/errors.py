"""Every error that Binnacle raises on purpose; the tree below is the whole of it.

Raised by adapters (`from` the library's own error) and by domains; mapped to gRPC by `servicekit.rpc.status`.

    BinnacleError
    ├── InvalidRequest            INVALID_ARGUMENT      names field, value and fix
    │   └── ContextWindowExceeded INVALID_ARGUMENT
    ├── Unauthenticated           UNAUTHENTICATED
    ├── PermissionDenied          PERMISSION_DENIED
    ├── NotFound                  NOT_FOUND
    ├── NotReady                  FAILED_PRECONDITION
    ├── Conflict                  ABORTED               the same work is in flight; try again
    ├── Overloaded                RESOURCE_EXHAUSTED    carries a retry delay
    │   └── QuotaExceeded         RESOURCE_EXHAUSTED
    ├── BackendUnavailable        UNAVAILABLE
    └── BackendTimeout            DEADLINE_EXCEEDED

Anything else reaches a caller as INTERNAL with fixed text and an error id.
"""

from collections.abc import Mapping


class BinnacleError(Exception):
    """An expected failure whose message may be shown to a caller.

    Args:
        message: says what, which value, and what to do.
        reason: UPPER_SNAKE, stable, for `google.rpc.ErrorInfo.reason`.
        metadata: bounded extra facts for `ErrorInfo.metadata`; never bodies or secrets.

    A servicer may set `details`, messages that go with the status to its caller; those of a backend's error are read
    with `servicekit.rpc.status.details_of`, and go no further.
    """

    default_reason = "ERROR"

    def __init__(self, message: str, *, reason: str | None = None, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})
        self.details: tuple[object, ...] = ()


class InvalidRequest(BinnacleError):
    """The request can never succeed as it stands.

    `field` is the request's field path (`chunks[2].text`); it becomes a BadRequest field violation.
    """

    default_reason = "INVALID_REQUEST"

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)
        self.field = field


class ContextWindowExceeded(InvalidRequest):
    """The question alone does not fit into the model's context window."""

    default_reason = "CONTEXT_WINDOW_EXCEEDED"


class Unauthenticated(BinnacleError):
    """No credential, or one that does not verify."""

    default_reason = "UNAUTHENTICATED"


class PermissionDenied(BinnacleError):
    """The credential verifies and lacks the scope or the tenant."""

    default_reason = "PERMISSION_DENIED"


class NotFound(BinnacleError):
    """The named thing does not exist for this tenant."""

    default_reason = "NOT_FOUND"


class NotReady(BinnacleError):
    """The system is not in a state in which this call can work."""

    default_reason = "NOT_READY"


class Conflict(BinnacleError):
    """The same work is in flight; the caller may try again."""

    default_reason = "CONFLICT"


class Overloaded(BinnacleError):
    """Too much work is queued; `retry_after_s` says when to try again."""

    default_reason = "OVERLOADED"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float = 1.0,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)
        self.retry_after_s = retry_after_s


class QuotaExceeded(Overloaded):
    """The tenant's quota is used up; `retry_after_s` says when it renews."""

    default_reason = "QUOTA_EXCEEDED"


class BackendUnavailable(BinnacleError):
    """Something Binnacle depends on cannot be reached or refuses."""

    default_reason = "BACKEND_UNAVAILABLE"


class BackendTimeout(BinnacleError):
    """Something Binnacle depends on did not answer within the deadline."""

    default_reason = "BACKEND_TIMEOUT"
