"""What any vector store must do about embedding models: one an index, and a new one beside; part of `vector_store.py`.

The second model of these tests turns the words around before it hashes them and has vectors of 32 values.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from servicekit.adapters.memory.embedder import DIMENSION, embed_words
from servicekit.errors import NotReady
from servicekit.ports.embedder import Vector
from servicekit.ports.vector_store import IndexedChunk, SearchMode, SearchQuery, VectorStore
from servicekit.testing.conformance.vector_store_corpus import WithLibrary, documents_of, query_of
from servicekit.testing.documents import MODEL, make_revision, put

NEW_MODEL = "turned-words@1/32"
NEW_DIMENSION = 32


def embed_turned(text: str) -> Vector:
    """The vector of the second model."""
    values = embed_words(text[::-1])[:NEW_DIMENSION]
    length = math.hypot(*values)
    return tuple(value / length for value in values)


def with_new_vectors(chunks: Sequence[IndexedChunk]) -> list[IndexedChunk]:
    """These chunks, embedded by the second model."""
    return [replace(one, vector=embed_turned(one.search_text)) for one in chunks]


def new_query(text: str, mode: SearchMode = SearchMode.DENSE) -> SearchQuery:
    """A search with the second model."""
    return query_of(text, mode, vector=embed_turned(text), model=NEW_MODEL)


async def rebuild_lacking(store: VectorStore, tenant: str) -> int:
    """Embed and write what is lacking, three chunks at a time; how many they were."""
    count = 0
    while lacking := await store.chunks_to_rebuild(tenant, limit=3):
        assert len(lacking) <= 3
        assert {one.vector for one in lacking} == {()}
        await store.write_rebuilt(tenant, with_new_vectors(lacking))
        count += len(lacking)
    return count


class ModelConformance(WithLibrary):
    """Behaviour of the pinned model, and of the change to another."""

    async def test_the_first_write_pins_the_model(self, library: VectorStore) -> None:
        """The corpus says which model made its vectors, and how long they are."""
        state = await library.describe("acme")
        assert (state.model, state.dimension) == (MODEL, DIMENSION)
        untouched = await library.describe("nobody")
        assert (untouched.model, untouched.dimension) == ("", 0)

    async def test_a_write_by_another_model_is_refused(self, library: VectorStore) -> None:
        """Nothing is written, whatever the length of the vectors."""
        before = await library.describe("acme")
        with pytest.raises(NotReady) as caught:
            await library.replace_documents("acme", [make_revision("x", ["y"])], model="other@1")
        assert caught.value.reason == "EMBEDDING_MODEL_MISMATCH"
        assert await library.describe("acme") == before

    @pytest.mark.parametrize("mode", [SearchMode.DENSE, SearchMode.HYBRID])
    async def test_a_query_by_another_model_is_refused(self, library: VectorStore, mode: SearchMode) -> None:
        """Vectors of two models cannot be compared; words alone need no model."""
        with pytest.raises(NotReady) as caught:
            await library.search("acme", query_of("moon", mode, model="other@1"))
        assert caught.value.reason == "EMBEDDING_MODEL_MISMATCH"
        words = query_of("moon", SearchMode.SPARSE, vector=None, model="")
        assert documents_of(await library.search("acme", words)) == ["tides"]

    async def test_tenants_may_have_different_models(self, library: VectorStore) -> None:
        """The pin is a tenant's own, and so is the dimension."""
        revision = make_revision("moon", ["a moon of another model"])
        turned = replace(revision, chunks=tuple(with_new_vectors(revision.chunks)))
        await library.replace_documents("other", [turned], model=NEW_MODEL)
        assert documents_of(await library.search("other", new_query("moon of another model"))) == ["moon"]
        assert documents_of(await library.search("acme", query_of("moon pulls", SearchMode.DENSE, top_k=1))) == [
            "tides"
        ]

    async def test_tenants_are_listed_by_their_names(self, library: VectorStore) -> None:
        """Every tenant that wrote, under the name it has."""
        await put(library, "Über/acme ✓", [make_revision("d", ["text"])])
        assert {"acme", "Über/acme ✓"} <= set(await library.list_tenants())
        assert "nobody" not in await library.list_tenants()

    async def test_a_new_index_is_built_beside_and_switched_to(self, library: VectorStore) -> None:
        """Searches use the old model until the switch and the new one from then on."""
        await library.begin_rebuild("acme", model=NEW_MODEL, dimension=NEW_DIMENSION)
        lacking = await library.chunks_to_rebuild("acme", limit=100)
        assert {one.chunk.document_id for one in lacking} == {"kafka", "bread", "tides"}
        assert {one.search_text for one in lacking} >= {"the moon pulls the water of the sea"}
        assert not await library.finish_rebuild("acme")
        assert await rebuild_lacking(library, "acme") == 4
        query = query_of("moon pulls sea", SearchMode.DENSE, top_k=1)
        assert documents_of(await library.search("acme", query)) == ["tides"]
        with pytest.raises(NotReady):
            await library.search("acme", new_query("moon pulls sea"))
        assert await library.finish_rebuild("acme")
        with pytest.raises(NotReady):
            await library.search("acme", query)
        for mode in SearchMode:
            hits = await library.search("acme", new_query("the moon pulls the water of the sea", mode))
            assert documents_of(hits)[0] == "tides"
        state = await library.describe("acme")
        assert (state.model, state.dimension, state.documents, state.chunks) == (NEW_MODEL, NEW_DIMENSION, 3, 4)

    async def test_writing_goes_on_after_the_switch(self, library: VectorStore) -> None:
        """The new model's documents go in, the old one's are refused."""
        await library.begin_rebuild("acme", model=NEW_MODEL, dimension=NEW_DIMENSION)
        await rebuild_lacking(library, "acme")
        assert await library.finish_rebuild("acme")
        with pytest.raises(NotReady):
            await put(library, "acme", [make_revision("late", ["a comet passes"])])
        revision = make_revision("tides", ["a comet passes"], revision=2)
        turned = replace(revision, chunks=tuple(with_new_vectors(revision.chunks)))
        await library.replace_documents("acme", [turned], model=NEW_MODEL)
        hits = await library.search("acme", new_query("a comet passes", SearchMode.HYBRID))
        assert hits.chunks[0].chunk.text == "a comet passes"
        assert "the moon pulls the water of the sea" not in {scored.chunk.text for scored in hits.chunks}

    async def test_a_rebuild_goes_on_where_it_was(self, library: VectorStore) -> None:
        """Begun again for the same model it keeps what is done; for another model it begins anew."""
        await library.begin_rebuild("acme", model=NEW_MODEL, dimension=NEW_DIMENSION)
        first = await library.chunks_to_rebuild("acme", limit=3)
        await library.write_rebuilt("acme", with_new_vectors(first))
        await library.begin_rebuild("acme", model=NEW_MODEL, dimension=NEW_DIMENSION)
        assert len(await library.chunks_to_rebuild("acme", limit=9)) == 1
        await library.begin_rebuild("acme", model="third@1", dimension=NEW_DIMENSION)
        assert len(await library.chunks_to_rebuild("acme", limit=9)) == 4

    async def test_what_changes_meanwhile_is_embedded_again(self, library: VectorStore) -> None:
        """Chunks that came or changed hold the switch back; those that went do not come back with it."""
        await library.begin_rebuild("acme", model=NEW_MODEL, dimension=NEW_DIMENSION)
        await rebuild_lacking(library, "acme")
        await put(library, "acme", [make_revision("tides", ["the sun pulls too"], revision=2)])
        await library.retract_document("acme", "bread", retract_time=make_revision("x", []).document.index_time)
        assert not await library.finish_rebuild("acme")
        assert [one.chunk.text for one in await library.chunks_to_rebuild("acme", limit=9)] == ["the sun pulls too"]
        await rebuild_lacking(library, "acme")
        assert await library.finish_rebuild("acme")
        hits = await library.search("acme", new_query("moon water flour sun pulls"))
        assert {scored.chunk.text for scored in hits.chunks} == {
            "topics have partitions and offsets",
            "a consumer commits its offset",
            "the sun pulls too",
        }

    async def test_chunks_that_are_gone_are_left_out(self, library: VectorStore) -> None:
        """A batch written for chunks that were replaced while it was embedded brings none of them back."""
        await library.begin_rebuild("acme", model=NEW_MODEL, dimension=NEW_DIMENSION)
        lacking = await library.chunks_to_rebuild("acme", limit=9)
        await put(library, "acme", [make_revision("tides", ["the sun pulls too"], revision=2)])
        await library.write_rebuilt("acme", with_new_vectors(lacking))
        assert await rebuild_lacking(library, "acme") == 1
        assert await library.finish_rebuild("acme")
        assert (await library.describe("acme")).chunks == 4
        hits = await library.search("acme", new_query("the moon pulls the water of the sea"))
        assert "the moon pulls the water of the sea" not in {scored.chunk.text for scored in hits.chunks}

    async def test_a_text_changed_under_its_id_is_embedded_again(self, library: VectorStore) -> None:
        """A vector made of the old words never stands for the new ones, whenever they came."""
        await library.begin_rebuild("acme", model=NEW_MODEL, dimension=NEW_DIMENSION)
        lacking = await library.chunks_to_rebuild("acme", limit=9)
        await put(library, "acme", [make_revision("tides", ["the sun pulls too"])])
        await library.write_rebuilt("acme", with_new_vectors(lacking))
        assert [one.search_text for one in await library.chunks_to_rebuild("acme", limit=9)] == ["the sun pulls too"]
        await rebuild_lacking(library, "acme")
        await put(library, "acme", [make_revision("tides", ["the earth turns"])])
        assert not await library.finish_rebuild("acme")
        await rebuild_lacking(library, "acme")
        assert await library.finish_rebuild("acme")
        hits = await library.search("acme", new_query("the earth turns"))
        assert hits.chunks[0].chunk.text == "the earth turns"
        assert hits.chunks[0].score == pytest.approx(1.0, abs=1e-3)

    async def test_a_rebuild_of_nothing(self, store: VectorStore) -> None:
        """A tenant that never wrote, or has the model already, needs no vectors to be switched."""
        await store.begin_rebuild("fresh", model=NEW_MODEL, dimension=NEW_DIMENSION)
        assert list(await store.chunks_to_rebuild("fresh", limit=5)) == []
        assert await store.finish_rebuild("fresh")
        assert (await store.describe("fresh")).model == NEW_MODEL
        assert (await store.search("fresh", new_query("anything"))).chunks == ()
