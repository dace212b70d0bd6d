"""Runs the HTTP server of the embedded ClickHouse on an open socket until SIGTERM.

Called by `services.local.clickhouse_front` once the process's time zone is set.
"""

import signal
import socket
from pathlib import Path

import uvicorn

from services.local.clickhouse.access import Access
from services.local.clickhouse.body import BodyMemory
from services.local.clickhouse.engine import Engine
from services.local.clickhouse.http import create_app
from services.local.clickhouse.limits import Limits
from services.local.clickhouse.memory import watched_memory
from services.local.clickhouse.worker import QueryRunner


def serve(listener: socket.socket, *, data: Path, database: str, limits: Limits, access: Access) -> None:
    """Serve until SIGTERM or SIGINT, then let what runs finish within the drain, and cancel the rest.

    Raises:
        DirectoryLockedError: another process holds `data`.
    """
    with (
        Engine(data, database=database, limits=limits) as engine,
        QueryRunner(limits) as runner,
        watched_memory(engine.release_memory, above_bytes=limits.purge_bytes),
    ):
        memory = BodyMemory(one_bytes=limits.body_bytes, all_bytes=limits.all_bodies_bytes)
        app = create_app(engine, runner, access=access, memory=memory)
        host, port = listener.getsockname()[:2]
        # Supervisors and tests read the chosen port from this line.
        print(f"listening on http://{host}:{port} database {database} version {engine.version}", flush=True)  # noqa: T201  # see above
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=limits.drain_s,
            timeout_keep_alive=75,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            # The server raises the signal that stopped it once more when it is done; the engine is still open then.
            signal.signal(number, lambda _number, _frame: None)
        uvicorn.Server(config).run(sockets=[listener])
