"""The cache of query vectors: remembered by tenant, model and text, bounded, the oldest forgotten."""

import pytest

from servicekit.adapters.memory.embedder import MemoryEmbedder
from servicekit.ports.embedder import EmbeddingModel, Vector
from services.retriever.search.query_cache import MAX_TEXT_CHARS, QueryCache


class CountingEmbedder(MemoryEmbedder):
    """Counts what it embeds."""

    def __init__(self, name: str = "one") -> None:
        self.model = EmbeddingModel(name=name, revision="1", dimension=64, max_tokens=256)
        self.asked: list[str] = []

    async def embed_query(self, text: str) -> Vector:
        """As its parent, counted."""
        self.asked.append(text)
        return await super().embed_query(text)


async def test_a_query_asked_again_is_not_embedded_again() -> None:
    """The second answer is the first one's vector, which is the embedder's."""
    embedder, cache = CountingEmbedder(), QueryCache()
    first = await cache.embed_query("acme", embedder, "tides")
    again = await cache.embed_query("acme", embedder, "tides")
    assert list(first) == list(again) == pytest.approx(list(await MemoryEmbedder().embed_query("tides")), abs=1e-7)
    assert embedder.asked == ["tides"]
    assert (cache.hits, cache.misses) == (1, 1)


async def test_tenants_and_models_do_not_share() -> None:
    """Another tenant's or another model's vector is never returned."""
    cache, one, two = QueryCache(), CountingEmbedder("one"), CountingEmbedder("two")
    for tenant, embedder in (("acme", one), ("other", one), ("acme", two)):
        await cache.embed_query(tenant, embedder, "tides")
    assert (len(one.asked), len(two.asked), len(cache)) == (2, 1, 3)


async def test_the_least_recently_used_is_forgotten() -> None:
    """With room for two, the one that was not asked for again goes."""
    embedder, cache = CountingEmbedder(), QueryCache(entries=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        await cache.embed_query("acme", embedder, text)
    assert embedder.asked == ["a", "b", "c", "b"]
    assert len(cache) == 2


async def test_long_texts_and_no_room_are_not_remembered() -> None:
    """A text beyond the bound, and any text where there are no entries, is embedded each time."""
    embedder = CountingEmbedder()
    for cache, text in ((QueryCache(), "x" * (MAX_TEXT_CHARS + 1)), (QueryCache(entries=0), "x")):
        await cache.embed_query("acme", embedder, text)
        await cache.embed_query("acme", embedder, text)
        assert len(cache) == 0
    assert len(embedder.asked) == 4
