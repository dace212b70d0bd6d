"""An embedder for tests: words hashed into a vector, so that texts sharing words are near.

Chosen by `memory://[?dimension=64]`; each dimension is a model of its own.
"""

import hashlib
import math
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

from servicekit.ports.embedder import EmbeddingModel, Vector

DIMENSION = 64
_WORD = re.compile(r"\w+|[^\w\s]", re.UNICODE)


class WordTokenizer:
    """Words and single punctuation marks."""

    def count(self, text: str) -> int:
        """Tokens of `text`."""
        return len(self.offsets(text))

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """Character range of each token."""
        return [match.span() for match in _WORD.finditer(text)]


class MemoryEmbedder:
    """The same text, the same vector, at once."""

    model = EmbeddingModel(name="word-hash", revision="1", dimension=DIMENSION, max_tokens=256)
    tokenizer = WordTokenizer()

    def __init__(self, dimension: int = DIMENSION) -> None:
        if dimension != DIMENSION:
            self.model = EmbeddingModel("word-hash", f"1-{dimension}", dimension, self.model.max_tokens)

    async def embed_query(self, text: str) -> Vector:
        """The unit vector of a text."""
        return embed_words(text, self.model.dimension)

    async def embed_documents(self, texts: Sequence[str]) -> Sequence[Vector]:
        """Unit vectors in order."""
        return [embed_words(text, self.model.dimension) for text in texts]

    async def ping(self) -> None:
        """Always answers."""


def embed_words(text: str, dimension: int = DIMENSION) -> Vector:
    """The unit vector of a text, of at most 256 values."""
    values = [0.0] * dimension
    values[0] = 1e-3  # a text without words still has a direction
    for word in _WORD.findall(text.lower()):
        digest = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=2).digest()
        values[digest[0] % dimension] += 1.0 if digest[1] % 2 else -1.0
    length = math.sqrt(sum(value * value for value in values))
    return tuple(value / length for value in values)


@asynccontextmanager
async def open_embedder(url: str, *, api_key: str | None = None) -> AsyncIterator[MemoryEmbedder]:
    """The embedder; it asks for no key."""
    del api_key
    (dimension,) = parse_qs(urlsplit(url).query).get("dimension", [str(DIMENSION)])
    yield MemoryEmbedder(int(dimension))
