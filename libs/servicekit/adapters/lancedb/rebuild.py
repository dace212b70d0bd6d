"""Builds an index of another embedding model beside the one that is searched, and switches to it.

Used by `vector_store.py`. What a write changes is taken out of the index beside first (`tenant.py`), so that a chunk
found there always has the vector of its words; hence an index beside that lacks nothing is complete.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import pyarrow as pa  # type: ignore[import-untyped]  # ships no stubs
import pyarrow.compute as pc  # type: ignore[import-untyped]  # ships no stubs
from lancedb.table import AsyncTable

from servicekit.adapters.lancedb import schema
from servicekit.adapters.lancedb.commits import commit, see_newest
from servicekit.adapters.lancedb.predicate import equals_any
from servicekit.adapters.lancedb.tables import create_chunks, drop_table
from servicekit.adapters.lancedb.tenant import TenantTables
from servicekit.adapters.vector_checks import check_vector
from servicekit.ports.vector_store import IndexedChunk

_COLUMNS = [*schema.CHUNK_COLUMNS, "search_text"]
_IDS_A_DELETE = 1_000


async def begin(tables: TenantTables, *, model: str, dimension: int) -> None:
    """Have an index of this model beside; one begun for it goes on, one for another is dropped."""
    async with tables.writing():
        entry = tables.entry
        if entry.rebuild_generation and (entry.rebuild_model, entry.rebuild_dimension) == (model, dimension):
            return
        begun = entry.begun(model, dimension)
        fields = tables.snapshot.fields
        beside = await create_chunks(tables.connection, begun.rebuild_table, dimension=dimension, fields=fields)
        await tables.catalog.put(begun)
        tables.entry, tables.beside = begun, beside
        if entry.rebuild_generation:
            await drop_table(tables.connection, entry.rebuild_table)


async def lacking(tables: TenantTables, *, limit: int) -> Sequence[IndexedChunk]:
    """Chunks that the index beside has no vector of."""
    if tables.beside is None:
        return ()
    row_ids = (await _lacking_ids(tables, tables.beside))[:limit]
    if not row_ids:
        return ()
    rows = await tables.snapshot.chunks.take_row_ids(row_ids).select(_COLUMNS).to_list()
    return [schema.to_indexed_chunk(row) for row in rows]


async def write(tables: TenantTables, chunks: Sequence[IndexedChunk]) -> None:
    """Put those that are still current, word for word, into the index beside."""
    async with tables.writing():
        if tables.beside is None or not chunks:
            return
        for one in chunks:
            check_vector(one.vector, dimension=tables.entry.rebuild_dimension)
        await see_newest(tables.chunks)
        where = equals_any("chunk_id", [one.chunk.chunk_id for one in chunks])
        found = await tables.chunks.query().where(where).select(["chunk_id", "search_text"]).to_list()
        words = {row["chunk_id"]: row["search_text"] for row in found}
        current = [one for one in chunks if words.get(one.chunk.chunk_id) == one.search_text]
        await _add_fields(tables, tables.beside)
        rows = schema.live_rows(current, await tables.beside.schema())
        await commit(
            tables.beside,
            lambda table: (
                table.merge_insert("chunk_id").when_matched_update_all().when_not_matched_insert_all().execute(rows)
            ),
        )


async def finish(tables: TenantTables, *, prepare: Callable[[str, int], Awaitable[None]]) -> bool:
    """Have what is beside indexed by `prepare(table, rows)`, then switch while no one writes, unless chunks lack."""
    beside = tables.beside
    if beside is None or await _lacking_ids(tables, beside):
        return False
    await prepare(tables.entry.rebuild_table, await beside.count_rows())
    async with tables.writing():
        if tables.beside is not beside or await _lacking_ids(tables, beside):
            return False
        await _drop_strays(tables, beside)
        await _add_fields(tables, beside)
        await tables.switch(tables.entry.switched(), beside)
    return True


async def _lacking_ids(tables: TenantTables, beside: AsyncTable) -> list[int]:
    """Row ids, in the snapshot, of the chunks that the index beside has not."""
    await see_newest(beside)
    held = (await beside.query().select(["chunk_id"]).to_arrow())["chunk_id"]
    live = await tables.snapshot.chunks.query().select(["chunk_id"]).with_row_id().to_arrow()
    mask = pc.invert(pc.is_in(live["chunk_id"], value_set=held.combine_chunks()))
    row_ids: list[int] = live.filter(mask)["_rowid"].to_pylist()
    return row_ids


async def _drop_strays(tables: TenantTables, beside: AsyncTable) -> None:
    """Take out what is no longer current; writes have taken it out already, unless a crash came between."""
    live = (await tables.snapshot.chunks.query().select(["chunk_id"]).to_arrow())["chunk_id"]
    held: pa.Table = await beside.query().select(["chunk_id"]).to_arrow()
    mask = pc.invert(pc.is_in(held["chunk_id"], value_set=live.combine_chunks()))
    strays = held.filter(mask)["chunk_id"].to_pylist()
    for begin_at in range(0, len(strays), _IDS_A_DELETE):
        where = equals_any("chunk_id", strays[begin_at : begin_at + _IDS_A_DELETE])
        await commit(beside, partial(AsyncTable.delete, where=where))


async def _add_fields(tables: TenantTables, beside: AsyncTable) -> None:
    """Columns for metadata fields that came since the index beside was begun."""
    known = schema.metadata_fields(await beside.schema())
    missing = {name: kind for name, kind in tables.snapshot.fields.items() if name not in known}
    if missing:
        await commit(beside, lambda table: table.add_columns(schema.metadata_columns(missing)))
