"""Who makes the running call, and what they may do. Set by the RPC server (or an HTTP entry), read everywhere.

The tenant of everything a service does comes from here and from nowhere else.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from servicekit.errors import PermissionDenied, Unauthenticated

SCOPES = frozenset(
    {
        "answer",
        "feedback",
        "search",
        "ingest",
        "generate",
        "guard",
        "evaluate",
        "analytics",
        "alerts",
        "admin",
        "restore",
    }
)
ALL_SCOPES = "*"
_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
TENANT_RULE = "1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit"


def is_tenant(name: str) -> bool:
    """Whether this can be a tenant's name: it ends up in folders, collections and event headers."""
    return _TENANT.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified credential's owner. `scopes` holds names of `SCOPES`, or `*` for all of them."""

    tenant: str
    subject: str
    scopes: frozenset[str]
    request_id: str | None = None

    def may(self, scope: str) -> bool:
        """Whether the credential carries this scope."""
        return scope in self.scopes or ALL_SCOPES in self.scopes


_caller: ContextVar[Caller | None] = ContextVar("caller", default=None)


def current_caller() -> Caller:
    """The running call's caller.

    Raises:
        Unauthenticated: outside of any authenticated call.
    """
    caller = _caller.get()
    if caller is None:
        raise Unauthenticated("no caller: this work runs outside of an authenticated call", reason="NO_CALLER")
    return caller


def caller_or_none() -> Caller | None:
    """The running call's caller, or None outside of any."""
    return _caller.get()


def require_scope(scope: str, caller: Caller | None = None) -> Caller:
    """The caller, if it carries the scope.

    Raises:
        PermissionDenied: naming the missing scope.
    """
    checked = caller or current_caller()
    if not checked.may(scope):
        raise PermissionDenied(
            f"this credential lacks the scope {scope!r}; ask for a key that carries it",
            reason="SCOPE_MISSING",
            metadata={"scope": scope, "subject": checked.subject},
        )
    return checked


def set_caller(caller: Caller) -> None:
    """Make this the running call's caller until its task ends."""
    _caller.set(caller)


@contextmanager
def acting_as(caller: Caller) -> Iterator[Caller]:
    """Run work on behalf of a caller that no RPC brought (an HTTP request, an event's tenant)."""
    token = _caller.set(caller)
    try:
        yield caller
    finally:
        _caller.reset(token)
