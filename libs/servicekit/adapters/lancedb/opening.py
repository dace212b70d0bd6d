"""Opens a tenant's tables, makes them for its first write, and mends what a crash left undone.

Used by `vector_store.py`.
"""

import hashlib
import re

from lancedb.db import AsyncConnection
from lancedb.table import AsyncTable

from servicekit.adapters.lancedb.catalog import Catalog, CatalogEntry, chunks_table
from servicekit.adapters.lancedb.tables import create_chunks, drop_table, open_archive, open_documents
from servicekit.adapters.lancedb.tenant import TenantTables, take_snapshot
from servicekit.errors import NotReady


def table_name(tenant: str) -> str:
    """A name that any tenant can have on any file system, recognisable and never shared."""
    readable = re.sub(r"[^a-z0-9]+", "-", tenant.lower())[:32].strip("-")
    digest = hashlib.sha256(tenant.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{readable or 'tenant'}-{digest}"


async def open_tables(connection: AsyncConnection, catalog: Catalog, tenant: str) -> TenantTables | None:
    """A tenant's tables; None if it never wrote.

    Raises:
        NotReady: its tables were made before indexes had a model.
    """
    entry = await catalog.find(tenant)
    if entry is None:
        await _refuse_old_layout(connection, table_name(tenant))
        return None
    await _drop_leftovers(connection, entry)
    return await _assemble(connection, catalog, entry)


async def make_tables(
    connection: AsyncConnection, catalog: Catalog, tenant: str, *, model: str, dimension: int
) -> TenantTables:
    """Tables for a tenant's first write, of this model."""
    entry = CatalogEntry(tenant, table_name(tenant), model, dimension)
    await create_chunks(connection, entry.chunks_table, dimension=dimension, fields={})
    await open_archive(connection, entry.name)
    await open_documents(connection, entry.name)
    await catalog.put(entry)
    return await _assemble(connection, catalog, entry)


async def _assemble(connection: AsyncConnection, catalog: Catalog, entry: CatalogEntry) -> TenantTables:
    documents = await open_documents(connection, entry.name)
    tables = TenantTables(
        connection,
        catalog,
        entry,
        tables=(
            await connection.open_table(entry.chunks_table),
            await open_archive(connection, entry.name),
            documents,
        ),
        snapshot=await take_snapshot(connection, entry, corpus_version=0),
        beside=await connection.open_table(entry.rebuild_table) if entry.rebuild_generation else None,
    )
    await tables.mend()
    return tables


async def _drop_leftovers(connection: AsyncConnection, entry: CatalogEntry) -> None:
    """Indexes that a switch, or one that never came about, left behind; generations only grow."""
    newest = max(entry.generation, entry.rebuild_generation)
    kept = {entry.generation, entry.rebuild_generation}
    for generation in range(max(newest - 2, 1), newest + 2):
        if generation not in kept:
            await drop_table(connection, chunks_table(entry.name, generation))


async def _refuse_old_layout(connection: AsyncConnection, name: str) -> None:
    if await _find(connection, f"{name}.chunks") is not None:
        raise NotReady(
            "the vector store's folder holds an index of an earlier layout, which does not say which model made it: "
            "give vector_store_url another folder and index the documents again",
            reason="INDEX_LAYOUT_OUTDATED",
        )


async def _find(connection: AsyncConnection, name: str) -> AsyncTable | None:
    try:
        return await connection.open_table(name)
    except ValueError:
        return None
