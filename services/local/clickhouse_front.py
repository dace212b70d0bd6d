"""An embedded ClickHouse for one machine: `python -m services.local.clickhouse_front --port 8123 --data DIR`.

Started by `services.local`; any ClickHouse HTTP client may talk to it. Data is on disk, and what was
acknowledged survives a kill -9. Set BINNACLE_CLICKHOUSE_FRONT__PASSWORD to require a password (and
BINNACLE_CLICKHOUSE_FRONT__USER for a user other than `default`).
"""

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from services.local.clickhouse.access import Access
from services.local.clickhouse.limits import MIN_MEMORY_MB, Limits

_ENVIRONMENT_PREFIX = "BINNACLE_CLICKHOUSE_FRONT__"
_DEFAULTS = Limits()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; 0 after a clean stop, 2 when the directory or the port is taken."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        limits = Limits(max_memory_mb=options.max_memory_mb, max_query_s=options.max_query_s, threads=options.threads)
    except ValueError as error:
        parser.error(str(error))
    data = options.data.resolve()
    data.mkdir(parents=True, exist_ok=True)
    os.chdir(data)  # the engine caches format schemas in the folder it is started in
    os.environ["TZ"] = "UTC"  # the engine reads its time zone when it is loaded, hence the late import
    from services.local.clickhouse.serving import serve  # noqa: PLC0415  # see the line above

    access = Access(
        user=os.environ.get(_ENVIRONMENT_PREFIX + "USER", "default"),
        password=os.environ.get(_ENVIRONMENT_PREFIX + "PASSWORD", ""),
    )
    try:
        with socket.create_server((options.host, options.port), backlog=256) as listener:
            serve(listener, data=data, database=options.database, limits=limits, access=access)
    except OSError as error:
        print(f"clickhouse_front: {error}", file=sys.stderr)  # noqa: T201  # a start-up error for a person
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.local.clickhouse_front", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8123, help="port to listen on; 0 chooses a free one")
    parser.add_argument("--data", type=Path, required=True, help="directory of the data, made if absent")
    parser.add_argument("--database", default="binnacle", help="the default database, made if absent")
    parser.add_argument(
        "--threads", type=int, default=_DEFAULTS.threads, help="queries that run at once (default %(default)s)"
    )
    parser.add_argument(
        "--max-query-s",
        type=int,
        default=_DEFAULTS.max_query_s,
        help="seconds a query may take unless it sets max_execution_time itself (default %(default)s)",
    )
    parser.add_argument(
        "--max-memory-mb",
        type=int,
        default=os.environ.get(_ENVIRONMENT_PREFIX + "MAX_MEMORY_MB", _DEFAULTS.max_memory_mb),
        help="megabytes of resident memory that this process keeps below; a query that would need more is refused with "
        f"MEMORY_LIMIT_EXCEEDED (default %(default)s, at least {MIN_MEMORY_MB}, or set "
        f"{_ENVIRONMENT_PREFIX}MAX_MEMORY_MB)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
