"""The vector store in memory keeps the contract of the vector-store port."""

import pytest

from servicekit.adapters.memory.vector_store import MemoryVectorStore
from servicekit.testing.conformance.vector_store import VectorStoreConformance


class TestMemoryVectorStore(VectorStoreConformance):
    """The suite against `memory://`."""

    @pytest.fixture
    def store(self) -> MemoryVectorStore:
        """An empty store."""
        return MemoryVectorStore()
