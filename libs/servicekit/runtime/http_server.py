"""An ASGI application under uvicorn, without uvicorn's own signal handling; imported only where there is one.

Run by `runtime.lifecycle`.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from servicekit.errors import BackendUnavailable
from servicekit.runtime.declaration import HttpApp


class HttpServer:
    """Bound by `bind`, served by `serve` until `stop`."""

    def __init__(self, http: HttpApp, *, grace_s: float) -> None:
        self._http = http
        self._socket: socket.socket | None = None
        self._serving = False
        self._ended = asyncio.Event()
        config = uvicorn.Config(
            http.app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=max(1, round(grace_s)),
        )
        self._server = _Unsignalled(config)

    def bind(self) -> int:
        """Take the port; returns it.

        Raises:
            BackendUnavailable: the port is taken.
        """
        taken = socket.socket(socket.AF_INET6 if ":" in self._http.host else socket.AF_INET)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((self._http.host, self._http.port))
        except OSError as exc:
            taken.close()
            raise BackendUnavailable(
                f"cannot listen on {self._http.host}:{self._http.port}: is the port taken?", reason="PORT_TAKEN"
            ) from exc
        self._socket = taken
        port: int = taken.getsockname()[1]
        return port

    async def serve(self) -> None:
        """Serve until `stop`."""
        assert self._socket is not None, "bind first"
        self._serving = True
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """Take no new request; return once those in flight have ended or the grace is over."""
        self._server.should_exit = True
        if self._serving:
            await self._ended.wait()
        elif self._socket is not None:
            self._socket.close()


class _Unsignalled(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the process's signals to the runtime."""
        yield
