"""The reranker: orders the best candidates of a search again, looking closer than an index can.

Implemented by `adapters.tei` and `adapters.lexical`; used by the retriever.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from servicekit.ports.embedder import Vector


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunk as the search found it: the words it is found by, its score there, its unit vector where one is known."""

    text: str
    score: float
    vector: Vector | None = None


class Reranker(Protocol):
    """Scores candidates against a query."""

    @property
    def id(self) -> str:
        """Model and version in one string, as responses carry it."""
        ...

    @property
    def wants_vectors(self) -> bool:
        """Whether the candidates' vectors are of use."""
        ...

    async def rerank(self, query: str, candidates: Sequence[Candidate]) -> Sequence[float]:
        """A score for each candidate in order, higher is better, comparable within this call only.

        Raises:
            BackendUnavailable, BackendTimeout, Overloaded: no scores; the search goes on without.
        """
        ...

    async def ping(self) -> None:
        """Return if it answers now, else raise BackendUnavailable."""
        ...
