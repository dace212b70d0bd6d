"""One incoming call from its metadata to its status: authentication, budget, correlation, metrics, one log line.

Made by `rpc.interceptor` for every call but health and reflection.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog
from uuid_utils.compat import uuid7

from servicekit.errors import BackendTimeout, InvalidRequest, PermissionDenied, Unauthenticated
from servicekit.rpc.auth import Authenticator, require_scope, set_caller
from servicekit.rpc.deadline import Budget, set_budget
from servicekit.rpc.status import RpcFailure, to_failure
from servicekit.telemetry.correlation import (
    REQUEST_ID_METADATA,
    Correlation,
    accept_request_id,
    set_correlation,
)
from servicekit.telemetry.metrics import counter, gauge, histogram
from servicekit.telemetry.tracing import TRACEPARENT

REQUESTS = counter("rpc_requests", meaning="Calls served, by method and status code.", labels=("method", "code"))
LATENCY = histogram("rpc_latency", meaning="From the call's start to its status.", labels=("method",))
IN_FLIGHT = gauge("rpc_in_flight", meaning="Calls being served now.", labels=("method",))

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RpcPolicy:
    """What holds for every call of one server.

    `scopes` maps a full method name (`/package.Service/Method`) to the scope it needs; a method without one is
    refused. A call without a deadline, or with a longer one, gets `max_deadline_s`; methods in `long_lived`
    (subscriptions) have no end and are cut when the server drains. A stream whose reader takes nothing for
    `slow_reader_s` is cut, so that it pins nothing.
    """

    service: str
    authenticator: Authenticator
    scopes: dict[str, str] = field(default_factory=dict)
    long_lived: frozenset[str] = frozenset()
    max_deadline_s: float = 300.0
    slow_reader_s: float = 20.0


class MethodMetrics:
    """The metric children of one method, looked up once."""

    def __init__(self, method: str) -> None:
        self.in_flight = IN_FLIGHT.labels(method)
        self.latency = LATENCY.labels(method)
        self._method = method
        self._requests: dict[str, Any] = {}

    def count(self, code: str) -> None:
        """Count one finished call."""
        child = self._requests.get(code)
        if child is None:
            child = self._requests[code] = REQUESTS.labels(self._method, code)
        child.inc()


class IncomingCall:
    """The state of one call; `open` before the servicer runs, `succeed`/`fail` once, `close` always."""

    __slots__ = (
        "_bound",
        "_context",
        "_correlation",
        "_metrics",
        "_policy",
        "_started_s",
        "budget",
        "code",
        "long_lived",
        "method",
        "reason",
    )

    def __init__(self, policy: RpcPolicy, method: str, metrics: MethodMetrics, context: Any) -> None:
        self._policy = policy
        self.method = method
        self._metrics = metrics
        self._context = context
        self._started_s = time.perf_counter()
        self._correlation = Correlation("")
        self.code = grpc.StatusCode.OK
        self.reason = ""
        self._bound = True
        self.long_lived = method in policy.long_lived
        self.budget = Budget.from_remaining(math.inf)
        metrics.in_flight.inc()

    def traceparent(self) -> str:
        """The caller's trace context, or the empty string."""
        return next((v for k, v in self._context.invocation_metadata() or () if k == TRACEPARENT), "")

    def open(self) -> None:
        """Correlate, authenticate, check the scope, open the budget; raises the error to answer with."""
        metadata = tuple(self._context.invocation_metadata() or ())
        given = next((value for name, value in metadata if name == REQUEST_ID_METADATA), None)
        self._correlation = Correlation(accept_request_id(given) or str(uuid7()))
        set_correlation(self._correlation)
        try:
            caller = self._policy.authenticator.authenticate(metadata)
        except Unauthenticated:
            raise
        except Exception as exc:
            log.exception("rpc.authentication_failed", method=self.method)
            raise Unauthenticated("this credential cannot be checked", reason="CREDENTIAL_MALFORMED") from exc
        self._correlation.tenant = caller.tenant
        self._check_scope(caller)
        set_caller(caller)
        self._open_budget()

    def _check_scope(self, caller: Any) -> None:
        scope = self._policy.scopes.get(self.method)
        if scope is None:
            raise PermissionDenied(
                f"{self.method} declares no scope and is refused to everyone", reason="SCOPE_UNDECLARED"
            )
        require_scope(scope, caller)

    def _open_budget(self) -> None:
        given = self._context.time_remaining()
        self._bound = given is None or given > self._policy.max_deadline_s
        maximum = math.inf if self.long_lived else self._policy.max_deadline_s
        self.budget = Budget.from_remaining(maximum if given is None else min(given, maximum))
        if self.budget.expired:
            raise BackendTimeout("the deadline had passed when the call arrived", reason="DEADLINE_EXPIRED")
        set_budget(self.budget)

    def parse(self, deserialize: Callable[[bytes], Any] | None, raw: bytes) -> Any:
        """The request message; rubbish is the caller's mistake, not ours."""
        if deserialize is None:
            return raw
        try:
            return deserialize(raw)
        except Exception as exc:
            raise InvalidRequest(
                f"the {len(raw)} bytes received are no valid request message of {self.method}: "
                "check the proto version, and that every string is UTF-8",
                reason="MALFORMED_MESSAGE",
            ) from exc

    async def bounded(self, work: Awaitable[Any]) -> Any:
        """Do the work within the budget. A deadline of the caller's within the maximum is kept by gRPC itself."""
        if not self._bound or self.long_lived:
            return await work
        async with asyncio.timeout(self.budget.timeout_s()):
            return await work

    def encode(self, serialize: Callable[[Any], bytes] | None, response: Any) -> Any:
        """The response's bytes; a servicer that returns the wrong thing fails here, like any other mistake."""
        return response if serialize is None else serialize(response)

    def succeed(self) -> None:
        """Leave the request id in the trailers of a good answer."""
        self._context.set_trailing_metadata(((REQUEST_ID_METADATA, self._correlation.request_id),))

    def fail(self, error: BaseException) -> RpcFailure:
        """Judge the error, log an unexpected one under its error id, and return the status to end with."""
        if isinstance(error, TimeoutError) and self.budget.expired:
            error = BackendTimeout("the deadline passed", reason="DEADLINE_EXCEEDED")
        failure = to_failure(error, service=self._policy.service, request_id=self._correlation.request_id)
        if failure.error_id:
            log.error("rpc.unexpected", method=self.method, error_id=failure.error_id, exc_info=error)
        self.code = failure.code
        self.reason = failure.reason
        return failure

    def cancelled(self) -> None:
        """The caller went away, or its deadline passed: nothing is answered."""
        expired = self._context.time_remaining() == 0
        self.code = grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED

    def close(self) -> None:
        """Count and log the call."""
        elapsed_s = time.perf_counter() - self._started_s
        self._metrics.in_flight.dec()
        self._metrics.latency.observe(elapsed_s)
        self._metrics.count(self.code.name)
        fields = {"reason": self.reason} if self.reason else {}
        log.info(
            "rpc.completed", method=self.method, code=self.code.name, elapsed_ms=round(elapsed_s * 1e3, 2), **fields
        )
