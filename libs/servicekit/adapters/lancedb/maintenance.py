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
# Below this an exact scan is as fast as the approximate index.
VECTOR_INDEX_MIN_ROWS = 5_000
# No search lasts this long, so no one reads an older version.
KEEP_VERSIONS = timedelta(minutes=2)


class Maintenance:
    """Told of every write; works on a tenant once enough has come together."""

    def __init__(self) -> None:
        self._rows: Counter[str] = Counter()
        self._writes: Counter[str] = Counter()
        self._due: asyncio.Queue[TenantTables] = asyncio.Queue()
        self._queued: set[str] = set()

    def note_write(self, tables: TenantTables, *, rows: int) -> None:
        """Count a write of so many rows."""
        self._rows[tables.name] += rows
        self._writes[tables.name] += 1
        due = self._rows[tables.name] >= OPTIMIZE_EVERY_ROWS or self._writes[tables.name] >= OPTIMIZE_EVERY_WRITES
        if due and tables.name not in self._queued:
            self._queued.add(tables.name)
            self._due.put_nowait(tables)

    async def run(self) -> None:
        """Work until cancelled; a failure is logged and tried again after the next writes."""
        while True:
            tables = await self._due.get()
            self._queued.discard(tables.name)
            self._rows[tables.name] = self._writes[tables.name] = 0
            try:
                await optimize(tables)
            except (OSError, RuntimeError, ValueError):
                log.exception("vector_store.optimize_failed", table=tables.name)


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
