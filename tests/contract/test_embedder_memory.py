"""The embedder in memory keeps the contract of the embedder port."""

import pytest

from servicekit.adapters.memory.embedder import MemoryEmbedder
from servicekit.testing.conformance.embedder import EmbedderConformance


class TestMemoryEmbedder(EmbedderConformance):
    """The suite against `memory://`."""

    @pytest.fixture
    def embedder(self) -> MemoryEmbedder:
        """It has no state."""
        return MemoryEmbedder()
