"""Tenant A never sees tenant B: random documents, names, filters and questions, in every vector store."""

import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from servicekit.adapters.lancedb.vector_store import open_vector_store as open_lancedb
from servicekit.adapters.memory.vector_store import MemoryVectorStore
from servicekit.adapters.weaviate.vector_store import open_vector_store as open_weaviate
from servicekit.ports.vector_store import VectorStore
from servicekit.testing.conformance.vector_store_isolation import Probe, check_isolation, probes

_runs = itertools.count()
# One store serves every example of a test: each has tenants of its own. A failing example is shown as it was drawn:
# making it smaller takes minutes where a disk or a server is asked.
_few = settings(
    max_examples=12,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@given(probe=probes())
async def test_memory_keeps_tenants_apart(probe: Probe) -> None:
    """Whatever is asked, the store in memory answers from the tenant's own."""
    await check_isolation(MemoryVectorStore(), probe, run="")


@pytest.fixture
async def lancedb(tmp_path: Path) -> AsyncIterator[VectorStore]:
    """A store on disk."""
    async with open_lancedb(f"lancedb://{tmp_path}") as store:
        yield store


@_few
@given(probe=probes())
async def test_lancedb_keeps_tenants_apart(lancedb: VectorStore, probe: Probe) -> None:
    """Whatever is asked, the store on disk answers from the tenant's own."""
    await check_isolation(lancedb, probe, run=f"{next(_runs)}:")


@pytest.fixture
async def weaviate(real_weaviate: str) -> AsyncIterator[VectorStore]:
    """A store on a real server, its collections its own."""
    async with open_weaviate(f"{real_weaviate}&collection_prefix=Isolation{os.getpid()}") as store:
        yield store
        client = store._server.client
        for name in await client.collections.list_all():
            if name.startswith(store._server.prefix):
                await client.collections.delete(name)


@pytest.mark.servers
@_few
@given(probe=probes())
async def test_weaviate_keeps_tenants_apart(weaviate: VectorStore, probe: Probe) -> None:
    """Whatever is asked, the store on a real server answers from the tenant's own."""
    await check_isolation(weaviate, probe, run=f"{next(_runs)}:")
