"""`/metrics` for Prometheus and `/healthz` for people and probes, over the smallest HTTP that serves them.

Run by `runtime.lifecycle` on the event loop: a loop that hangs is a service that does not answer here.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

from servicekit.errors import BackendUnavailable

_MAX_REQUEST_BYTES = 16 * 1024
_REQUEST_S = 5.0
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class StatusServer:
    """Answers GET and HEAD of two paths, one request a connection."""

    def __init__(
        self, report: Callable[[], dict[str, Any]], *, ready: Callable[[], bool], registry: CollectorRegistry = REGISTRY
    ) -> None:
        self._report = report
        self._ready = ready
        self._registry = registry
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port.

        Raises:
            BackendUnavailable: the port is taken.
        """
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=_MAX_REQUEST_BYTES)
        except OSError as exc:
            raise BackendUnavailable(
                f"cannot listen on {host}:{port}: is the port taken?", reason="PORT_TAKEN"
            ) from exc
        chosen: int = self._server.sockets[0].getsockname()[1]
        return chosen

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A probe that hangs up, dawdles or talks nonsense gets nothing more.
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head.split(b"\r\n", 1)[0].decode("latin-1")))
                await writer.drain()
        writer.close()

    def _answer(self, request_line: str) -> bytes:
        method, _, rest = request_line.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        code, content_type, body = self._route(method, path)
        head = (
            f"HTTP/1.1 {code} {_REASONS[code]}\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode("latin-1") + (b"" if method == "HEAD" else body)

    def _route(self, method: str, path: str) -> tuple[int, str, bytes]:
        if not path:
            return 400, "text/plain", b"bad request\n"
        if method not in ("GET", "HEAD"):
            return 405, "text/plain", b"GET and HEAD only\n"
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        if path == "/healthz":
            body = json.dumps(self._report(), ensure_ascii=False).encode() + b"\n"
            return 200 if self._ready() else 503, "application/json", body
        return 404, "text/plain", b"there are /metrics and /healthz\n"
