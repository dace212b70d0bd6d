"""What every embedder must do. Inherit it in a test class that has an `embedder` fixture.

Run by `tests/contract/test_embedder_*.py`.
"""

import asyncio
import math

import pytest

from servicekit.ports.embedder import Embedder, Vector

TEXTS = (
    "How is a partition assigned to a consumer?",
    "The consumer group coordinator assigns each partition to one consumer.",
    "Bread needs flour, water, salt and time.",
    "",
    " \n\t",
    "a",
    "日本語のテキスト and a 👩\u200d🚀 in one line",
    "e\u0301 \u202e right to left \u0000 null \ufeff",
    "word " * 600,
    "x" * 5_000,
)


def cosine(left: Vector, right: Vector) -> float:
    """Of unit vectors."""
    return sum(a * b for a, b in zip(left, right, strict=True))


class EmbedderConformance:
    """Behaviour that the retriever relies on."""

    async def test_a_ping_returns(self, embedder: Embedder) -> None:
        """An embedder that is open answers its ping."""
        await embedder.ping()

    def test_the_model_describes_itself(self, embedder: Embedder) -> None:
        """Name, revision, dimension and the longest text are stated."""
        model = embedder.model
        assert model.name
        assert model.revision
        assert model.id == f"{model.name}@{model.revision}"
        assert model.dimension > 1
        assert model.max_tokens > 16

    async def test_vectors_are_unit_vectors_of_the_stated_dimension(self, embedder: Embedder) -> None:
        """Whatever the text, its vector has length 1 and finite values."""
        for text, vector in zip(TEXTS, await embedder.embed_documents(TEXTS), strict=True):
            assert len(vector) == embedder.model.dimension, text[:20]
            assert math.isclose(sum(value * value for value in vector), 1.0, rel_tol=1e-4), text[:20]

    async def test_a_vector_depends_on_its_text_alone(self, embedder: Embedder) -> None:
        """The same text gives the very same vector as query, as document, alone, and in a crowd."""
        alone = [await embedder.embed_query(text) for text in TEXTS]
        forward, backward = await asyncio.gather(
            embedder.embed_documents(TEXTS * 3), embedder.embed_documents(TEXTS[::-1])
        )
        assert [tuple(vector) for vector in forward] == [tuple(vector) for vector in alone * 3]
        assert [tuple(vector) for vector in backward] == [tuple(vector) for vector in alone[::-1]]

    async def test_related_texts_are_nearer_than_unrelated_ones(self, embedder: Embedder) -> None:
        """A question is nearer to its answer than to something else."""
        question, answer, other = await embedder.embed_documents(TEXTS[:3])
        assert cosine(question, answer) > cosine(question, other)

    async def test_no_texts_give_no_vectors(self, embedder: Embedder) -> None:
        """Embedding nothing is no error."""
        assert list(await embedder.embed_documents([])) == []

    @pytest.mark.parametrize("text", TEXTS)
    def test_token_offsets_are_ranges_of_the_text_in_order(self, embedder: Embedder, text: str) -> None:
        """Each token covers characters of the text, none before the one before it."""
        offsets = list(embedder.tokenizer.offsets(text))
        assert len(offsets) == embedder.tokenizer.count(text)
        assert all(0 <= start <= end <= len(text) for start, end in offsets)
        assert [start for start, _ in offsets] == sorted(start for start, _ in offsets)

    def test_tokens_are_counted_beyond_the_models_bound(self, embedder: Embedder) -> None:
        """A text too long for the model is counted whole, so that it can be cut."""
        assert embedder.tokenizer.count("word " * 600) == 600
