"""The small corpus that the vector stores' conformance suites search, and short words for searching it.

Used by `vector_store_search.py` and `vector_store_writes.py` beside this file.
"""

import pytest

from servicekit.adapters.memory.embedder import embed_words
from servicekit.domain.chunk import MetadataScalar
from servicekit.domain.filter import Comparison, Operator
from servicekit.ports.vector_store import SearchHits, SearchMode, SearchQuery, VectorStore
from servicekit.testing.documents import MODEL, make_revision, put


def query_of(text: str, mode: SearchMode = SearchMode.HYBRID, **options: object) -> SearchQuery:
    """A search for a text, with its vector by words and up to ten chunks unless `options` say else."""
    values = {"vector": embed_words(text), "model": MODEL, "top_k": 10} | options
    return SearchQuery(mode=mode, text=text, **values)  # type: ignore[arg-type]  # spelled at each call


def compare(field: str, operator: Operator, *values: MetadataScalar) -> Comparison:
    """A filter of one comparison."""
    return Comparison(field, operator, values)


def documents_of(hits: SearchHits) -> list[str]:
    """Whose chunks were found, best first."""
    return [scored.chunk.document_id for scored in hits.chunks]


class WithLibrary:
    """Gives its heirs the corpus, in the store of their `store` fixture."""

    @pytest.fixture
    async def library(self, store: VectorStore) -> VectorStore:
        """A tenant `acme` with three documents about different things."""
        await put(
            store,
            "acme",
            [
                make_revision(
                    "kafka",
                    ["topics have partitions and offsets", "a consumer commits its offset"],
                    title="Kafka",
                    source_uri="https://example.org/kafka",
                    metadata={"lang": "en", "year": 2021, "draft": False, "Size": 1.5},
                ),
                make_revision(
                    "bread",
                    ["flour water salt and yeast make bread"],
                    metadata={"lang": "de", "year": 2024, "draft": True},
                ),
                make_revision("tides", ["the moon pulls the water of the sea"], metadata={"lang": "en"}),
            ],
        )
        return store
