"""A gRPC server as every service runs it: bounds stated, one interceptor, health per service name, reflection.

Opened by `runtime.lifecycle` and by tests.
"""

from collections.abc import Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from servicekit.errors import BackendUnavailable
from servicekit.rpc.interceptor import CallInterceptor

MAX_METADATA_BYTES = 16 * 1024
KEEPALIVE_S = 30
KEEPALIVE_TIMEOUT_S = 10
_MIN_CLIENT_PING_S = 10


class RpcServer:
    """The server and its health; NOT_SERVING until told otherwise."""

    def __init__(self, *, interceptor: CallInterceptor, max_message_bytes: int, max_concurrent_rpcs: int) -> None:
        self.interceptor = interceptor
        self.server = grpc.aio.server(
            interceptors=[interceptor],
            options=_options(max_message_bytes),
            maximum_concurrent_rpcs=max_concurrent_rpcs,
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        self._names: tuple[str, ...] = ()
        self.serving = False

    async def start(self, address: str, *, names: Sequence[str]) -> int:
        """Listen on `address` (`host:port`, port 0: a free one); returns the port.

        Raises:
            BackendUnavailable: the port is taken.
        """
        self._names = (*names, "")
        await self.set_serving(serving=False)
        reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), self.server)
        try:
            port = self.server.add_insecure_port(address)
        except RuntimeError as exc:
            raise BackendUnavailable(f"cannot listen on {address}: is the port taken?", reason="PORT_TAKEN") from exc
        await self.server.start()
        return port

    async def set_serving(self, *, serving: bool) -> None:
        """Tell health clients, for every service name and for the empty one."""
        self.serving = serving
        answer = health_pb2.HealthCheckResponse
        for name in self._names:
            await self._health.set(name, answer.SERVING if serving else answer.NOT_SERVING)

    async def stop(self, grace_s: float) -> None:
        """Take no new call, cut subscriptions, let the others end within `grace_s`, cancel what remains."""
        await self._health.enter_graceful_shutdown()
        self.interceptor.cut_subscriptions()
        await self.server.stop(grace_s)


def join_host_port(host: str, port: int) -> str:
    """An address as gRPC reads it: IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _options(max_message_bytes: int) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _MIN_CLIENT_PING_S * 1000),
        ("grpc.http2.max_pings_without_data", 0),
    ]
