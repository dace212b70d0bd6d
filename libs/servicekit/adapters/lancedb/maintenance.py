"""Keeps a tenant's tables fast: indexes what was appended, merges small files, drops versions no one reads.

Run by `vector_store.py` in one background task, a tenant at a time, after writes.
"""

import asyncio
import time
from collections import Counter
from datetime import timedelta

import structlog

from servicekit.adapters.lancedb.tenant import TenantTables

log = structlog.get_logger()

# Full-text search scans what is not indexed yet: 2 ms grow to 27 ms at 1,000 such rows.
OPTIMIZE_EVERY_ROWS = 1_000
OPTIMIZE_EVERY_WRITES = 50
# What stays below these bounds is taken care of once no one has written for a while, unless it is next to nothing.
IDLE_S = 3.0
IDLE_MIN_ROWS = 64
# From here on the approximate index answers faster than an exact scan (2,000 rows: 3 ms against 4 ms).
VECTOR_INDEX_MIN_ROWS = 5_000
# No search lasts this long, so no one reads an older version.
KEEP_VERSIONS = timedelta(minutes=2)


class Maintenance:
    """Told of every write; works on a tenant once enough has come together, or writing has paused."""

    def __init__(self) -> None:
        self._rows: Counter[str] = Counter()
        self._writes: Counter[str] = Counter()
        self._tables: dict[str, TenantTables] = {}
        self._written = asyncio.Event()

    def note_write(self, tables: TenantTables, *, rows: int) -> None:
        """Count a write of so many rows."""
        self._rows[tables.name] += rows
        self._writes[tables.name] += 1
        self._tables[tables.name] = tables
        self._written.set()

    async def run(self) -> None:
        """Work until cancelled; a failure is logged and tried again after the next writes."""
        while True:
            idle = not await self._wait_for_write()
            for name in [name for name in self._tables if self._is_due(name, idle=idle)]:
                tables = self._tables.pop(name)
                self._rows[name] = self._writes[name] = 0
                try:
                    await optimize(tables)
                except (OSError, RuntimeError, ValueError):
                    log.exception("vector_store.optimize_failed", table=name)

    async def _wait_for_write(self) -> bool:
        """Whether there was a write; without any tenant in hand there is nothing else to wait for."""
        try:
            async with asyncio.timeout(IDLE_S if self._tables else None):
                await self._written.wait()
        except TimeoutError:
            self._tables = {name: tables for name, tables in self._tables.items() if self._is_due(name, idle=True)}
            return False
        self._written.clear()
        return True

    def _is_due(self, name: str, *, idle: bool) -> bool:
        rows, writes = self._rows[name], self._writes[name]
        return rows >= (IDLE_MIN_ROWS if idle else OPTIMIZE_EVERY_ROWS) or writes >= OPTIMIZE_EVERY_WRITES


async def optimize(tables: TenantTables) -> None:
    """Optimise the tables of a tenant while its writes wait; searches go on."""
    started_s = time.monotonic()
    async with tables.write_lock:
        for table in (tables.chunks, tables.archive, tables.documents):
            await table.optimize(cleanup_older_than=KEEP_VERSIONS)
        rows = await tables.chunks.count_rows()
        if rows >= VECTOR_INDEX_MIN_ROWS and not tables.snapshot.has_vector_index:
            await tables.build_vector_index()
        await tables.refresh()
    elapsed_ms = round((time.monotonic() - started_s) * 1000)
    log.info("vector_store.optimized", table=tables.name, rows=rows, elapsed_ms=elapsed_ms)
