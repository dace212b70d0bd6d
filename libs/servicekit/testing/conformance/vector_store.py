"""What every vector store must do. Inherit it in a test class that has a `store` fixture (vectors of 64 values).

Run by `tests/contract/test_vector_store_*.py`.
"""

from servicekit.testing.conformance.vector_store_limits import LimitConformance
from servicekit.testing.conformance.vector_store_models import ModelConformance
from servicekit.testing.conformance.vector_store_retraction import RetractionConformance
from servicekit.testing.conformance.vector_store_search import SearchConformance
from servicekit.testing.conformance.vector_store_writes import WriteConformance


class VectorStoreConformance(
    SearchConformance, WriteConformance, RetractionConformance, ModelConformance, LimitConformance
):
    """Behaviour that the retriever relies on."""
