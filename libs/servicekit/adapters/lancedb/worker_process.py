"""The parent's end of the maintenance process: started when there is work, ended when there has been none for a while.

Used by `maintenance.py`.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from servicekit.errors import BackendUnavailable

# One thread each: maintenance is never in a hurry, and the machine belongs to the searches.
# A lost race between commits comes back as the answer; the library's own line about it would only stand twice.
_ENVIRONMENT = {
    "LANCE_CPU_THREADS": "1",
    "LANCE_IO_THREADS": "2",
    "TOKIO_WORKER_THREADS": "1",
    "LANCE_LOG": "error",
}
_STOP_GRACE_S = 5.0
# Generous: 100,000 chunks take 6 s to optimize and 40 s to index on two busy cores, a starved process far longer.
_TIMEOUT_S = 3600.0
_MODULE = "servicekit.adapters.lancedb.worker"


class WorkerProcess:
    """One process at a time, one request at a time."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._asking = asyncio.Lock()
        self._asked_s = 0.0

    async def optimize(self, tables: Sequence[str], *, prune_older_than_s: float | None = None) -> None:
        """Index and merge what was appended; drop older versions if an age is given.

        Raises:
            BackendUnavailable: it failed, or the process ended or took too long; what was committed stays.
        """
        await self._ask({"tables": list(tables), "prune_older_than_s": prune_older_than_s, "vector_index": None})

    async def build_vector_index(self, table: str) -> None:
        """An approximate index in place of the exact scan.

        Raises:
            BackendUnavailable: as above.
        """
        await self._ask({"tables": [], "prune_older_than_s": None, "vector_index": table})

    async def stop_if_unused(self, unused_s: float) -> None:
        """End the process if nothing was asked of it for so long."""
        if not self._asking.locked() and time.monotonic() - self._asked_s >= unused_s:
            await self.stop()

    async def stop(self) -> None:
        """End the process, if there is one; it ends with its standard input."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_GRACE_S):
                await process.wait()
                return
        process.kill()
        await process.wait()

    async def _ask(self, request: Mapping[str, Any]) -> None:
        async with self._asking:
            self._asked_s = time.monotonic()
            try:
                line = await self._exchange(json.dumps(request).encode() + b"\n")
            except (OSError, TimeoutError) as exc:
                await self.stop()
                raise BackendUnavailable(f"maintenance failed: {exc}", reason="MAINTENANCE_FAILED") from exc
            except asyncio.CancelledError:
                await self.stop()
                raise
        error = json.loads(line)["error"] if line else "its process ended"
        if error:
            raise BackendUnavailable(f"maintenance failed: {error}", reason="MAINTENANCE_FAILED")

    async def _exchange(self, line: bytes) -> bytes:
        process = await self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        async with asyncio.timeout(_TIMEOUT_S):
            process.stdin.write(line)
            await process.stdin.drain()
            return await process.stdout.readline()

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                _MODULE,
                self._folder,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, **_ENVIRONMENT},
            )
        return self._process
