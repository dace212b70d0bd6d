"""The embeddings contract server on a thread of its own, for tests that block while they ask it.

The embedder's tokenizer is synchronous: a server on the test's own loop could not answer it.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from servicekit.testing.tei_server.dials import Dials
from servicekit.testing.tei_server.server import TeiServer, open_tei_server

_START_S = 10.0


@contextmanager
def tei_server_in_thread(dials: Dials | None = None, *, port: int = 0) -> Iterator[TeiServer]:
    """Serve until the block ends; the dials may be turned from the test's thread."""
    started = threading.Event()
    opened: list[TeiServer] = []
    ending: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        end = asyncio.Event()
        async with open_tei_server(dials, port=port) as server:
            opened.append(server)
            ending.append((asyncio.get_running_loop(), end))
            started.set()
            await end.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="tei-server", daemon=True)
    thread.start()
    if not started.wait(_START_S):
        raise TimeoutError(f"the contract server did not listen on port {port} within {_START_S} s")
    try:
        yield opened[0]
    finally:
        loop, end = ending[0]
        loop.call_soon_threadsafe(end.set)
        thread.join(_START_S)
