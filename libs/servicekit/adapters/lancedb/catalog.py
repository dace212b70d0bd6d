"""The folder's table of tenants: whose tables are whose, which index is searched, and which model made it.

Used by `tenant.py` and `rebuild.py`. A row changes in one commit, so that a switch of index is one instant and lasts.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import pyarrow as pa  # type: ignore[import-untyped]  # ships no stubs
from lancedb.db import AsyncConnection
from lancedb.table import AsyncTable

from servicekit.adapters.lancedb.predicate import quote

_TABLE = "tenants"
_SCHEMA = pa.schema(
    [
        ("tenant", pa.string()),
        ("name", pa.string()),
        ("model", pa.string()),
        ("dimension", pa.int32()),
        ("generation", pa.int64()),
        ("rebuild_model", pa.string()),
        ("rebuild_dimension", pa.int32()),
        ("rebuild_generation", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One tenant: `name` begins its tables' names; generations number its indexes, 0 stands for none beside.

    `dimension` is 0 until the first vectors come.
    """

    tenant: str
    name: str
    model: str
    dimension: int
    generation: int = 1
    rebuild_model: str = ""
    rebuild_dimension: int = 0
    rebuild_generation: int = 0

    @property
    def chunks_table(self) -> str:
        """The index that is searched."""
        return chunks_table(self.name, self.generation)

    @property
    def rebuild_table(self) -> str:
        """The index that is built beside, if there is one."""
        return chunks_table(self.name, self.rebuild_generation)

    def begun(self, model: str, dimension: int) -> "CatalogEntry":
        """With a new index beside."""
        generation = max(self.generation, self.rebuild_generation) + 1
        return replace(self, rebuild_model=model, rebuild_dimension=dimension, rebuild_generation=generation)

    def switched(self) -> "CatalogEntry":
        """With the index beside as the one that is searched."""
        return CatalogEntry(self.tenant, self.name, self.rebuild_model, self.rebuild_dimension, self.rebuild_generation)


def chunks_table(name: str, generation: int) -> str:
    """The name of one of a tenant's indexes."""
    return f"{name}.chunks-{generation}"


class Catalog:
    """Open with `open_catalog`; this process is the only one that writes to it."""

    def __init__(self, table: AsyncTable) -> None:
        self._table = table
        self._writing = asyncio.Lock()

    async def find(self, tenant: str) -> CatalogEntry | None:
        """A tenant's row."""
        rows = await self._table.query().where(f"tenant = {quote(tenant)}").to_list()
        return CatalogEntry(**rows[0]) if rows else None

    async def put(self, entry: CatalogEntry) -> None:
        """Write a tenant's row, or write it over."""
        async with self._writing:
            merge = self._table.merge_insert("tenant").when_matched_update_all().when_not_matched_insert_all()
            await merge.execute(pa.Table.from_pylist([asdict(entry)], schema=_SCHEMA))

    async def tenants(self) -> Sequence[str]:
        """Every tenant that has a row."""
        names: list[str] = (await self._table.query().select(["tenant"]).to_arrow())["tenant"].to_pylist()
        return names


async def open_catalog(connection: AsyncConnection) -> Catalog:
    """The folder's catalog, made if need be."""
    return Catalog(await connection.create_table(_TABLE, schema=_SCHEMA, exist_ok=True))
