"""The maintenance process: `python -m servicekit.adapters.lancedb.worker FOLDER`, one JSON request a line, one answer.

Started by `maintenance.py` with the lowest priority and few threads, so that searches in the parent do not wait for it;
ends with its standard input, so with its parent, whatever it is doing: the store's commits are whole or not there.
"""

import asyncio
import contextlib
import json
import os
import sys
import threading
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any

import lancedb

from servicekit.adapters.lancedb.optimizing import build_vector_index, optimize_tables

_NICE = 19
# The store's default is 1 GiB and more; this process reads each file once.
_CACHE_BYTES = 64 * 1024 * 1024


async def serve(folder: str, requests: SimpleQueue[str]) -> None:
    """Answer requests until the process ends."""
    connection = await lancedb.connect_async(folder, session=lancedb.Session(_CACHE_BYTES, _CACHE_BYTES))
    while True:
        request = json.loads(await asyncio.to_thread(requests.get))
        try:
            await _work(connection, request)
            answer: dict[str, str | None] = {"error": None}
        except (OSError, RuntimeError, ValueError) as exc:
            answer = {"error": str(exc)[:2000]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


async def _work(connection: lancedb.AsyncConnection, request: Mapping[str, Any]) -> None:
    if request["vector_index"]:
        await build_vector_index(connection, request["vector_index"])
    await optimize_tables(connection, request["tables"], prune_older_than_s=request["prune_older_than_s"])


def _read(requests: SimpleQueue[str]) -> None:
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def main() -> None:
    """Lower the priority, then serve."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(_NICE)
    requests: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    asyncio.run(serve(sys.argv[1], requests))


if __name__ == "__main__":
    main()
