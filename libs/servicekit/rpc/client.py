"""Channels to other services: balanced, bounded, authenticated afresh, each call within the running budget.

Opened by `services.*.bootstrap` and the SDK. A wrapper of the channel rather than interceptors: those cost a task per
call in grpc.aio, and their streaming calls lack methods of the real ones.
"""

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import grpc

from servicekit.rpc.auth import Caller, TokenMinter, caller_or_none
from servicekit.rpc.deadline import current_budget
from servicekit.rpc.server import KEEPALIVE_S, KEEPALIVE_TIMEOUT_S
from servicekit.telemetry.correlation import REQUEST_ID_METADATA, current_request_id
from servicekit.telemetry.tracing import TRACEPARENT, current_traceparent

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_ATTEMPTS = 3
MAX_BACKOFF_MS = 1_000
CONNECT_WITHIN_MS = 500  # gRPC's name for it is min back-off: the least that an attempt to connect may take
_RESOLVERS = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "xds:")
_EXPIRED_S = -1.0  # gRPC answers DEADLINE_EXCEEDED at once, without a call

_Metadata = tuple[tuple[str, str | bytes], ...]


@asynccontextmanager
async def open_channel(
    target: str,
    *,
    audience: str,
    minter: TokenMinter | None = None,
    api_key: str | None = None,
    scopes: Iterable[str] | None = None,
    idempotent: Sequence[str] = (),
    default_timeout_s: float | None = 30.0,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    credentials: grpc.ChannelCredentials | None = None,
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to `target` (`host:port` or a URI such as `dns:///host:port`); closed on exit.

    Args:
        target: where the service listens; every address behind a name is used in turn.
        audience: the service's name (`retriever`), to which minted tokens are bound.
        minter: signs a token for the running caller (`rpc.auth.acting_as` names one where no RPC runs).
        api_key: sent instead of a token, by direct callers.
        scopes: what minted tokens carry; None: the caller's own.
        idempotent: full names of unary methods (`package.Service/Method`) that are retried on UNAVAILABLE.
        default_timeout_s: for calls outside of any budget and without a timeout; None: none.
        max_message_bytes: bound of a message either way.
        credentials: for TLS; None: plaintext.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.lb_policy_name", "round_robin"),
        ("grpc.service_config", service_config(idempotent)),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # A service that was killed is found again about a second after it is back, and a new address of its name too.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", CONNECT_WITHIN_MS),
        ("grpc.max_reconnect_backoff_ms", MAX_BACKOFF_MS),
        ("grpc.dns_min_time_between_resolutions_ms", MAX_BACKOFF_MS),
        ("grpc.enable_http_proxy", 0),
        # Connections of its own: shared ones would pass on the back-off of a dead server whose port is used again.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    uri = target if target.startswith(_RESOLVERS) else f"dns:///{target}"
    inner = (
        grpc.aio.insecure_channel(uri, options)
        if credentials is None
        else grpc.aio.secure_channel(uri, credentials, options)
    )
    granted = None if scopes is None else frozenset(scopes)
    caller = _Outgoing(audience, minter, api_key, granted, default_timeout_s)
    try:
        yield ServiceChannel(inner, caller)
    finally:
        await inner.close()


def service_config(idempotent: Sequence[str]) -> str:
    """GRPC's service config: round robin, and up to 3 attempts on UNAVAILABLE for the named methods alone."""
    names = [dict(zip(("service", "method"), name.split("/"), strict=True)) for name in idempotent]
    retry = {
        "maxAttempts": MAX_ATTEMPTS,
        "initialBackoff": "0.05s",
        "maxBackoff": "1s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if names:
        config["methodConfig"] = [{"name": names, "retryPolicy": retry}]
        # Under an outage retries stop by themselves, rather than tripling the load.
        config["retryThrottling"] = {"maxTokens": 20, "tokenRatio": 0.5}
    return json.dumps(config)


class _Outgoing:
    """What every outgoing call is given: time left, credential, trace context, request id."""

    def __init__(
        self,
        audience: str,
        minter: TokenMinter | None,
        api_key: str | None,
        scopes: frozenset[str] | None,
        default_timeout_s: float | None,
    ) -> None:
        self._audience = audience
        self._minter = minter
        self._api_key = api_key
        self._scopes = scopes
        self._default_timeout_s = default_timeout_s

    def timeout_s(self, asked_s: float | None) -> float | None:
        budget = current_budget()
        left_s = None if budget is None else budget.timeout_s()
        if left_s is None:
            # No budget at all, or one without end: then the asked one counts, or the channel's.
            return asked_s if asked_s is not None or budget is not None else self._default_timeout_s
        if left_s <= 0:
            return _EXPIRED_S
        return left_s if asked_s is None else min(asked_s, left_s)

    def metadata(self, given: Iterable[tuple[str, str | bytes]] | None) -> _Metadata:
        made: list[tuple[str, str | bytes]] = list(given or ())
        if self._api_key is not None:
            made.append(("authorization", f"Bearer {self._api_key}"))
        elif self._minter is not None:
            caller: Caller | None = caller_or_none()
            if caller is not None:
                token = self._minter.mint(caller, audience=self._audience, scopes=self._scopes)
                made.append(("authorization", f"Bearer {token}"))
        if request_id := current_request_id():
            made.append((REQUEST_ID_METADATA, request_id))
        if traceparent := current_traceparent():
            made.append((TRACEPARENT, traceparent))
        return tuple(made)


class ServiceChannel(grpc.aio.Channel):
    """A channel whose calls carry what `_Outgoing` gives; the call objects are gRPC's own."""

    def __init__(self, inner: grpc.aio.Channel, outgoing: _Outgoing) -> None:
        self._inner = inner
        self._outgoing = outgoing

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """A unary method."""
        return self._bind(self._inner.unary_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """A server-streaming method."""
        return self._bind(self._inner.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """A client-streaming method."""
        return self._bind(self._inner.stream_unary(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """A bidirectional method."""
        return self._bind(self._inner.stream_stream(*args, **kwargs))

    def _bind(self, inner: Any) -> Any:
        outgoing = self._outgoing

        def call(
            request: Any = None,
            *,
            timeout: float | None = None,
            metadata: Any = None,
            **options: Any,
        ) -> Any:
            return inner(request, timeout=outgoing.timeout_s(timeout), metadata=outgoing.metadata(metadata), **options)

        return call

    async def close(self, grace: float | None = None) -> None:
        """Close the channel; calls in flight get `grace` seconds."""
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """The state of the connection."""
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Return when the state differs from the given one."""
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Return once connected."""
        await self._inner.channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()
