"""The vector store on a real Weaviate keeps the contract of the vector-store port."""

import itertools
import os
from collections.abc import AsyncIterator

import pytest

from servicekit.adapters.weaviate.vector_store import WeaviateVectorStore, open_vector_store
from servicekit.testing.conformance.vector_store import VectorStoreConformance

pytestmark = pytest.mark.servers
_prefixes = (f"T{os.getpid()}N{number}" for number in itertools.count())


@pytest.fixture
async def store(real_weaviate: str) -> AsyncIterator[WeaviateVectorStore]:
    """An empty store: collections of its own, which go with it."""
    prefix = next(_prefixes)
    async with open_vector_store(f"{real_weaviate}&collection_prefix={prefix}") as opened:
        yield opened
        for name in await opened._server.client.collections.list_all():
            if name.startswith(prefix):
                await opened._server.client.collections.delete(name)


class TestWeaviateVectorStore(VectorStoreConformance):
    """The suite against `weaviate://`."""
