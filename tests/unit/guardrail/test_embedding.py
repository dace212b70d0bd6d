"""Tests of embedding for detectors: from threads, remembered, bounded in time, and told where it is missing."""

import asyncio
from collections.abc import Sequence

import pytest

from servicekit.adapters.memory.embedder import MemoryEmbedder, embed_words
from servicekit.errors import BackendTimeout, BackendUnavailable
from servicekit.ports.embedder import Vector
from services.guardrail.embedding import MAX_TEXT_CHARS, BlockingEmbedder, missing_embedder


class CountingEmbedder(MemoryEmbedder):
    """Remembers what it was asked; hangs where told."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.hangs = False

    async def embed_documents(self, texts: Sequence[str]) -> Sequence[Vector]:
        """As the memory embedder does."""
        self.asked += texts
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        return await super().embed_documents(texts)


def blocking(embedder: CountingEmbedder, *, timeout_s: float = 10.0, entries: int = 2) -> BlockingEmbedder:
    """The embedder for threads."""
    return BlockingEmbedder(embedder, asyncio.get_running_loop(), timeout_s=timeout_s, cache_entries=entries)


async def test_vectors_come_in_order_and_are_remembered() -> None:
    """Each text is embedded once while it is known; the least recently used is forgotten."""
    embedder = CountingEmbedder()
    embed = blocking(embedder)
    one, two, again = await asyncio.to_thread(embed, ["a", "b", "a"])
    assert list(one) == list(again) == pytest.approx(embed_words("a"))
    assert list(two) == pytest.approx(embed_words("b"))
    await asyncio.to_thread(embed, ["a", "c"])
    await asyncio.to_thread(embed, ["a", "b"])
    assert embedder.asked == ["a", "b", "c", "b"]


async def test_a_long_text_is_cut_before_it_is_read() -> None:
    """A model reads only so much; a megabyte is not cut into tokens for it."""
    embedder = CountingEmbedder()
    await asyncio.to_thread(blocking(embedder), ["a" * 1_000_000])
    assert [len(text) for text in embedder.asked] == [MAX_TEXT_CHARS]


async def test_an_embedder_that_hangs_is_a_timeout() -> None:
    """The thread goes on; nothing is left behind on the loop."""
    embedder = CountingEmbedder()
    embedder.hangs = True
    with pytest.raises(BackendTimeout, match="not embedded within"):
        await asyncio.to_thread(blocking(embedder, timeout_s=0.02), ["a"])


def test_a_missing_embedder_says_so() -> None:
    """Its cause and what to do."""
    with pytest.raises(BackendUnavailable, match=r"could not be opened \(MODEL_MISSING\)"):
        missing_embedder("MODEL_MISSING")(["a"])
