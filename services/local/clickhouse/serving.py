"""Runs the HTTP server of the embedded ClickHouse on an open socket until SIGTERM.

Called by `services.local.clickhouse_front` once the process's time zone is set.
"""

import signal
import socket
from pathlib import Path

import uvicorn

from services.local.clickhouse.access import Access
from services.local.clickhouse.engine import Engine
from services.local.clickhouse.http import create_app
from services.local.clickhouse.worker import QueryRunner

_MAX_BODY_BYTES = 1 << 30
_MAX_WAITING = 256
_DRAIN_S = 10


def serve(listener: socket.socket, *, data: Path, database: str, threads: int, access: Access) -> None:
    """Serve until SIGTERM or SIGINT, then let what runs finish.

    Raises:
        DirectoryLockedError: another process holds `data`.
    """
    with (
        Engine(data, database=database) as engine,
        QueryRunner(threads=threads, max_waiting=_MAX_WAITING) as runner,
    ):
        app = create_app(engine, runner, access=access, max_body_bytes=_MAX_BODY_BYTES)
        host, port = listener.getsockname()[:2]
        # Supervisors and tests read the chosen port from this line.
        print(f"listening on http://{host}:{port} database {database} version {engine.version}", flush=True)  # noqa: T201  # see above
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=_DRAIN_S,
            timeout_keep_alive=75,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            # The server raises the signal that stopped it once more when it is done; the engine is still open then.
            signal.signal(number, lambda _number, _frame: None)
        uvicorn.Server(config).run(sockets=[listener])
