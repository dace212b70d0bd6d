"""Keeps a tenant's tables fast: indexes what was appended, merges small files, drops versions no one reads.

Run by `vector_store.py` in one background task, a tenant at a time, after writes. Unless a table is small, the work
itself is done by a process of the lowest priority (`worker.py`), since in this one it would take the searches' threads.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog
from lancedb.db import AsyncConnection

from servicekit.adapters.lancedb.optimizing import optimize_tables
from servicekit.adapters.lancedb.tenant import TenantTables
from servicekit.adapters.lancedb.worker_process import WorkerProcess
from servicekit.errors import BackendUnavailable

log = structlog.get_logger()

# Full-text search reads what is not indexed yet: each 100 such rows of 120 words add 3 ms to a search.
OPTIMIZE_EVERY_ROWS = 250
# While no one searches, fewer and larger steps rewrite less.
OPTIMIZE_EVERY_ROWS_UNSEARCHED = 2_000
OPTIMIZE_EVERY_WRITES = 50
# What stays below these bounds is taken care of once no one has written for a while, unless it is next to nothing.
IDLE_S = 3.0
IDLE_MIN_ROWS = 64
# A writer that is this far ahead of the index, while searches go on, waits for it, but not for ever.
MAX_UNINDEXED_ROWS = 1_000
MAX_WAIT_S = 20.0
SEARCHED_WITHIN_S = 10.0
# Below, the work is done in milliseconds and needs no process.
WORKER_MIN_ROWS = 5_000
# From here on the approximate index answers faster than an exact scan (2,000 rows: 3 ms against 4 ms).
VECTOR_INDEX_MIN_ROWS = 5_000
# Files of versions older than this go, so long after the work that made them old.
KEEP_VERSIONS_S = 20.0
PRUNE_AFTER_S = 45.0
# An idle process is not worth its memory.
WORKER_IDLE_S = 60.0
# Where the worker's commits keep losing against writes, writes wait for it.
EXCLUSIVE_AFTER_FAILURES = 2
GIVE_UP_AFTER_FAILURES = 5


@dataclass(slots=True)
class _Pending:
    """What has come together of a tenant since the last work on it, and what is being worked on."""

    tables: TenantTables
    rows: int = 0
    writes: int = 0
    erased: bool = False
    rows_in_work: int = 0
    failures: int = 0
    prune_at_s: float | None = None

    def is_due(self, *, idle: bool) -> bool:
        often = OPTIMIZE_EVERY_ROWS if self.is_searched() else OPTIMIZE_EVERY_ROWS_UNSEARCHED
        return (
            self.rows >= (IDLE_MIN_ROWS if idle else often)
            or self.writes >= OPTIMIZE_EVERY_WRITES
            or (idle and self.erased)
            or (self.prune_at_s is not None and time.monotonic() >= self.prune_at_s)
        )

    def is_searched(self) -> bool:
        return time.monotonic() - self.tables.searched_s < SEARCHED_WITHIN_S


class Maintenance:
    """Told of every write; works on a tenant once enough has come together, or writing has paused."""

    def __init__(self, connection: AsyncConnection, worker: WorkerProcess) -> None:
        self._connection = connection
        self._worker = worker
        self._pending: dict[str, _Pending] = {}
        self._written = asyncio.Event()
        self._caught_up = asyncio.Condition()

    def note_write(self, tables: TenantTables, *, rows: int, erased: bool = False) -> None:
        """Count a write of so many rows."""
        pending = self._pending.setdefault(tables.entry.name, _Pending(tables))
        pending.rows += rows
        pending.writes += 1
        pending.erased |= erased
        self._written.set()

    async def wait_for_room(self, tables: TenantTables) -> None:
        """Hold a writer back, for a bounded time, while searches suffer from what is not indexed yet."""
        pending = self._pending.get(tables.entry.name)
        if pending is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(MAX_WAIT_S), self._caught_up:
                await self._caught_up.wait_for(
                    lambda: pending.rows + pending.rows_in_work < MAX_UNINDEXED_ROWS or not pending.is_searched()
                )

    async def run(self) -> None:
        """Work until cancelled; a failure is logged and tried again."""
        try:
            while True:
                idle = not await self._wait_for_write()
                for pending in [one for one in self._pending.values() if one.is_due(idle=idle)]:
                    await self._work_on(pending)
                if idle:
                    await self._worker.stop_if_unused(WORKER_IDLE_S)
        finally:
            await self._worker.stop()

    async def prepare(self, table: str, rows: int) -> None:
        """Index a whole table that no one searches yet."""
        await self._optimize([table], rows=rows)
        if rows >= VECTOR_INDEX_MIN_ROWS:
            await self._worker.build_vector_index(table)

    async def optimize(self, tables: TenantTables, *, exclusive: bool = False) -> None:
        """Index what was appended, and let searches see it; writes wait only if `exclusive`."""
        started_s = time.monotonic()
        rows = await tables.snapshot.chunks.count_rows()
        if exclusive:
            async with tables.writing():
                await self._optimize(_names(tables), rows=rows)
                await tables.refresh()
        else:
            await self._optimize(_names(tables), rows=rows)
            async with tables.writing():
                await tables.refresh()
        if rows >= VECTOR_INDEX_MIN_ROWS and not tables.snapshot.has_vector_index:
            await self._worker.build_vector_index(tables.entry.chunks_table)
            async with tables.writing():
                await tables.refresh()
        elapsed_ms = round((time.monotonic() - started_s) * 1000)
        log.info("vector_store.optimized", table=tables.entry.name, rows=rows, elapsed_ms=elapsed_ms)

    async def prune(self, tables: TenantTables) -> None:
        """Delete files that only old versions need; call it right after `optimize`, when no version in use is old."""
        await tables.wait_for_readers()
        rows = await tables.snapshot.chunks.count_rows()
        await self._optimize(_names(tables), rows=rows, prune_older_than_s=KEEP_VERSIONS_S)
        async with tables.writing():
            await tables.refresh()

    async def _optimize(self, names: Sequence[str], *, rows: int, prune_older_than_s: float | None = None) -> None:
        if rows < WORKER_MIN_ROWS:
            await optimize_tables(self._connection, names, prune_older_than_s=prune_older_than_s)
        else:
            await self._worker.optimize(names, prune_older_than_s=prune_older_than_s)

    async def _wait_for_write(self) -> bool:
        """Whether there was a write."""
        try:
            async with asyncio.timeout(IDLE_S if self._pending else WORKER_IDLE_S):
                await self._written.wait()
        except TimeoutError:
            self._pending = {name: one for name, one in self._pending.items() if _is_of_interest(one)}
            return False
        self._written.clear()
        return True

    async def _work_on(self, pending: _Pending) -> None:
        rows, erased = pending.rows, pending.erased
        pending.rows_in_work, pending.rows, pending.writes, pending.erased = rows, 0, 0, False
        try:
            await self.optimize(pending.tables, exclusive=pending.failures >= EXCLUSIVE_AFTER_FAILURES)
            if pending.prune_at_s is not None and time.monotonic() >= pending.prune_at_s:
                pending.prune_at_s = None
                await self.prune(pending.tables)
            if pending.prune_at_s is None and (rows or erased):
                pending.prune_at_s = time.monotonic() + PRUNE_AFTER_S
            pending.failures = 0
        except (BackendUnavailable, OSError, RuntimeError, ValueError) as exc:
            pending.failures += 1
            name = pending.tables.entry.name
            log.warning("vector_store.optimize_failed", table=name, failures=pending.failures, error=str(exc))
            if pending.failures % GIVE_UP_AFTER_FAILURES:
                pending.rows += rows
                pending.erased |= erased
        finally:
            pending.rows_in_work = 0
            async with self._caught_up:
                self._caught_up.notify_all()


def _is_of_interest(pending: _Pending) -> bool:
    return pending.is_due(idle=True) or pending.prune_at_s is not None


def _names(tables: TenantTables) -> Sequence[str]:
    return [tables.entry.chunks_table, tables.archive.name, tables.documents.name]
