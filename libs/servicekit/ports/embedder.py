"""The embedder: texts to unit vectors, and the tokenizer that bounds a chunk.

Implemented by `adapters.onnx`, `adapters.tei`, `adapters.openai` and `adapters.memory`; used by the retriever.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Vector = Sequence[float]


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """What made a vector; vectors of different models never share an index.

    `revision` changes with anything that changes a vector: weights, precision, exporter, pooling, prompts.
    `max_tokens` counts the special tokens, and not the model's prompts; what is longer is cut.
    """

    name: str
    revision: str
    dimension: int
    max_tokens: int

    @property
    def id(self) -> str:
        """Name and revision in one string, as events and responses carry it."""
        return f"{self.name}@{self.revision}"


class Tokenizer(Protocol):
    """The embedder's own tokenizer, without special tokens. Safe to call from any thread.

    CPU-bound, or a call to a server (BackendUnavailable, BackendTimeout): never on the event loop for a long text.
    """

    def count(self, text: str) -> int:
        """Tokens of `text`, uncut."""
        ...

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """Character range `[start, end)` of each token in order, uncut."""
        ...


class Embedder(Protocol):
    """Embeds one text the same way whatever else is embedded at the time."""

    @property
    def model(self) -> EmbeddingModel:
        """The model behind the vectors."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer whose counts decide where a text is cut."""
        ...

    async def embed_query(self, text: str) -> Vector:
        """The unit vector of a query, ahead of any document that waits.

        Raises:
            Overloaded: too many queries wait.
            BackendUnavailable: the embedder is closed or cannot be reached.
        """
        ...

    async def embed_documents(self, texts: Sequence[str]) -> Sequence[Vector]:
        """Unit vectors in the order of `texts`; gives way to queries."""
        ...

    async def ping(self) -> None:
        """Return if the embedder answers now, else raise BackendUnavailable."""
        ...
