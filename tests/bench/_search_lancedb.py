"""LanceDB for `search.py`: filled, indexed and served, and searched bare with the same two queries, fused alike."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import lancedb
from lancedb.query import MatchQuery

from servicekit.adapters.lancedb.opening import table_name
from servicekit.adapters.lancedb.schema import CHUNK_COLUMNS
from servicekit.adapters.lancedb.snapshot import MIN_EF, REFINE_FACTOR
from servicekit.adapters.lancedb.vector_store import LanceVectorStore, open_vector_store
from servicekit.domain.fusion import fuse
from servicekit.ports.embedder import Vector
from servicekit.ports.vector_store import MIN_FUSION_DEPTH
from services.local.layout import TENANT
from tests.bench._search_corpus import SearchCorpus
from tests.bench._search_stand import SMALL_TENANT, RawSearch, Tenants, fill, running_retriever, tell


@asynccontextmanager
async def lancedb_stand(folder: Path, corpus: SearchCorpus, *, small: int, model: str) -> AsyncIterator[Tenants]:
    """LanceDB: filled, its index built, then served."""
    async with open_vector_store(f"lancedb://{folder}/index") as store:
        await fill(store, TENANT, corpus, chunks=len(corpus.texts), model=model)
        await fill(store, SMALL_TENANT, corpus, chunks=small, model=model)
        tell("building the indexes")
        await _index(store)
    connection = await lancedb.connect_async(f"{folder}/index")
    async with running_retriever(folder, f"lancedb://{folder}/index") as (large, small_stub):
        yield Tenants(
            large, small_stub, await _raw_lancedb(connection, TENANT), await _raw_lancedb(connection, SMALL_TENANT)
        )


async def _index(store: LanceVectorStore) -> None:
    for tenant in (TENANT, SMALL_TENANT):
        tables = store._tenants[tenant]
        await store._maintenance.optimize(tables)


async def _raw_lancedb(connection: lancedb.AsyncConnection, tenant: str) -> RawSearch:
    names = await connection.table_names(limit=100)
    name = max(one for one in names if one.startswith(f"{table_name(tenant)}.chunks-"))
    table = await connection.open_table(name)
    indexed = any("vector" in index.columns for index in await table.list_indices())

    async def search(text: str, vector: Vector, top_k: int) -> list[str]:
        nearest = table.query().nearest_to(list(vector)).distance_type("cosine")
        if indexed:
            nearest = nearest.ef(max(MIN_EF, MIN_FUSION_DEPTH * REFINE_FACTOR)).refine_factor(REFINE_FACTOR)
        dense_query = nearest.select(["chunk_id", "_distance"]).with_row_id().limit(MIN_FUSION_DEPTH)
        words = MatchQuery(text, "search_text")  # type: ignore[call-arg]  # defaults the checker misses
        sparse_query = table.query().nearest_to_text(words).select(["chunk_id", "_score"]).with_row_id()
        dense, sparse = await asyncio.gather(dense_query.to_arrow(), sparse_query.limit(MIN_FUSION_DEPTH).to_arrow())
        rows = _columns(sparse, "_rowid") | _columns(dense, "_rowid")
        cosines = {key: 1.0 - distance for key, distance in _columns(dense, "_distance").items()}
        scores = _columns(sparse, "_score")
        best = fuse(cosines, scores, dense_weight=0.5, top_k=top_k)
        found = await table.take_row_ids([rows[one.key] for one in best]).select(CHUNK_COLUMNS).to_list()
        return [row["chunk_id"] for row in found]

    return search


def _columns(found: Any, name: str) -> dict[str, Any]:
    """A column by chunk id."""
    return dict(zip(found["chunk_id"].to_pylist(), found[name].to_pylist(), strict=True))
