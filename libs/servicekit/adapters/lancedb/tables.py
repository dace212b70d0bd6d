"""Makes and drops the tables of a tenant, with their indexes. Used by `tenant.py`, `rebuild.py` and `opening.py`."""

from collections.abc import Mapping

from lancedb.db import AsyncConnection
from lancedb.index import FTS, BTree
from lancedb.table import AsyncTable

from servicekit.adapters.lancedb import schema
from servicekit.domain.filter import FieldKind


async def create_chunks(
    connection: AsyncConnection, name: str, *, dimension: int, fields: Mapping[str, FieldKind]
) -> AsyncTable:
    """An empty index, in place of what a crash may have left under its name."""
    await drop_table(connection, name)
    table = await connection.create_table(name, schema=schema.chunk_schema(dimension, fields))
    await table.create_index("search_text", config=FTS())
    for column in ("chunk_id", "document_id"):
        await table.create_index(column, config=BTree())
    return table


async def open_archive(connection: AsyncConnection, name: str) -> AsyncTable:
    """A tenant's archive, made if need be."""
    return await _open(connection, f"{name}.archive", schema.ARCHIVE_SCHEMA, keys=("content_hash", "document_id"))


async def open_documents(connection: AsyncConnection, name: str) -> AsyncTable:
    """A tenant's documents, made if need be."""
    return await _open(connection, f"{name}.documents", schema.DOCUMENT_SCHEMA, keys=("document_id",))


async def drop_table(connection: AsyncConnection, name: str) -> None:
    """Drop a table, if it is there."""
    await connection.drop_table(name, ignore_missing=True)


async def _open(connection: AsyncConnection, name: str, columns: object, *, keys: tuple[str, ...]) -> AsyncTable:
    table = await connection.create_table(name, schema=columns, exist_ok=True)
    indexed = {column for index in await table.list_indices() for column in index.columns}
    for key in keys:
        if key not in indexed:
            await table.create_index(key, config=BTree())
    return table
