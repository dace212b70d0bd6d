"""The maintenance work itself, on tables by name. Run by `worker.py`, for small tables by `maintenance.py` directly."""

from collections.abc import Sequence
from datetime import timedelta

from lancedb.db import AsyncConnection
from lancedb.index import HnswSq

# Nothing goes unless it is asked for: a search may still read it.
_KEEP_ALL = timedelta(days=36_500)


async def optimize_tables(
    connection: AsyncConnection, names: Sequence[str], *, prune_older_than_s: float | None = None
) -> None:
    """Index and merge what was appended; drop older versions if an age is given."""
    keep = _KEEP_ALL if prune_older_than_s is None else timedelta(seconds=prune_older_than_s)
    for name in names:
        await (await connection.open_table(name)).optimize(cleanup_older_than=keep)


async def build_vector_index(connection: AsyncConnection, name: str) -> None:
    """An approximate index in place of the exact scan: recall .9985 at 100,000 chunks as `snapshot.py` searches."""
    table = await connection.open_table(name)
    config = HnswSq(distance_type="cosine", num_partitions=1, m=20, ef_construction=300)
    await table.create_index("vector", config=config, replace=True)
