"""What ties lines, spans and calls of one request together: its id and its tenant.

Set by the RPC server for each call (and by HTTP entries); read by logs, trailers and outgoing calls.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

REQUEST_ID_METADATA = "x-request-id"
_VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(slots=True)
class Correlation:
    """Mutable on purpose: the gateway names a request after the call has begun."""

    request_id: str
    tenant: str = ""


_current: ContextVar[Correlation | None] = ContextVar("correlation", default=None)


def current_correlation() -> Correlation | None:
    """What the running call is known by, or None outside of any call."""
    return _current.get()


def current_request_id() -> str:
    """The running request's id, or the empty string outside of any."""
    correlation = _current.get()
    return correlation.request_id if correlation else ""


def name_request(request_id: str) -> None:
    """Give the running call its id: from here on in logs, trailers and outgoing calls."""
    correlation = _current.get()
    if correlation is None:
        _current.set(Correlation(request_id))
    else:
        correlation.request_id = request_id


def set_correlation(correlation: Correlation) -> None:
    """Make this the running call's correlation until its task ends."""
    _current.set(correlation)


@contextmanager
def correlated(request_id: str, *, tenant: str = "") -> Iterator[Correlation]:
    """Correlate a piece of work that no RPC began (an HTTP request, an event, a background task)."""
    correlation = Correlation(request_id, tenant)
    token = _current.set(correlation)
    try:
        yield correlation
    finally:
        _current.reset(token)


def accept_request_id(candidate: str | bytes | None) -> str:
    """The caller's request id if it is well formed (1 to 128 of `A-Za-z0-9._:-`), else the empty string."""
    if isinstance(candidate, str) and _VALID_REQUEST_ID.fullmatch(candidate):
        return candidate
    return ""
