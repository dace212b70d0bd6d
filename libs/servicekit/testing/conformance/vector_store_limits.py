"""What any vector store must hold and return whole: many chunks, long and odd texts, places, vectors.

Part of `vector_store.py` beside this file.
"""

import pytest

from servicekit.adapters.memory.embedder import embed_words
from servicekit.domain.filter import Operator
from servicekit.domain.fusion import FusionMethod
from servicekit.errors import InvalidRequest
from servicekit.ports.vector_store import ChunkPlace, SearchMode, VectorStore
from servicekit.testing.conformance.vector_store_corpus import WithLibrary, compare, documents_of, query_of
from servicekit.testing.documents import content_hash, make_revision, put

_ODD = (
    "before\x00after compass",
    "\u0301 a lone combining mark compass",
    "\u202eright to left override compass",
    "𝕮𝖔𝖒𝖕𝖆𝖘𝖘 beyond the basic plane compass",
    "\ufeffbyte order mark compass",
    "control \x01\x1f\x7f compass",
    "\u2028line and paragraph\u2029 separators compass",
)


class LimitConformance(WithLibrary):
    """Behaviour at the edges of size and spelling, and of what a search returns beside chunks."""

    async def test_places_give_the_chunks_that_stand_there(self, library: VectorStore) -> None:
        """Chunks of current revisions by document and ordinal; what is not there is absent."""
        await put(library, "acme", [make_revision("tides", ["one", "two", "three"], revision=2)])
        await put(library, "other", [make_revision("tides", ["a", "b", "c", "d"])])
        places = [ChunkPlace("tides", 2), ChunkPlace("tides", 0), ChunkPlace("tides", 3), ChunkPlace("none", 0)]
        found = await library.get_places("acme", [*places, ChunkPlace("kafka", 1)])
        assert {(place.document_id, place.ordinal): chunk.text for place, chunk in found.items()} == {
            ("tides", 2): "three",
            ("tides", 0): "one",
            ("kafka", 1): "a consumer commits its offset",
        }
        assert await library.get_places("acme", []) == {}
        assert await library.get_places("nobody", places) == {}

    async def test_vectors_come_where_they_are_asked_for(self, library: VectorStore) -> None:
        """By chunk id, pointing where they pointed when written; none without asking."""
        for mode in SearchMode:
            hits = await library.search("acme", query_of("moon water", mode, want_vectors=True))
            assert set(hits.vectors) == {scored.chunk.chunk_id for scored in hits.chunks}
            for scored in hits.chunks:
                expected = embed_words(scored.chunk.text)
                assert tuple(hits.vectors[scored.chunk.chunk_id]) == pytest.approx(expected, abs=1e-3)
            assert (await library.search("acme", query_of("moon water", mode))).vectors == {}

    async def test_fusion_by_rank(self, library: VectorStore) -> None:
        """First in both rankings is 1; a chunk that one ranking lacks has its weight's share at most."""
        ranked = query_of("moon pulls sea", fusion=FusionMethod.RANKED)
        hits = (await library.search("acme", ranked)).chunks
        assert hits[0].chunk.document_id == "tides"
        assert hits[0].score == hits[0].fusion_score == pytest.approx(1.0, abs=1e-4)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert all(0 <= hit.score <= 0.5 + 1e-6 for hit in hits if hit.sparse_score is None)
        second = [hit for hit in hits if hit.sparse_score is None][0]  # noqa: RUF015  # one of several
        place = 1 + sum((hit.dense_score or 0) > (second.dense_score or 0) for hit in hits)
        assert second.score == pytest.approx(0.5 * 61 / (60 + place), abs=1e-3)

    async def test_a_document_of_many_chunks(self, store: VectorStore) -> None:
        """1,200 chunks go in at one instant, every one can be found, and all are replaced at one instant."""
        texts = [f"entry number{n} of a long register" for n in range(1200)]
        await put(store, "acme", [make_revision("register", texts)])
        assert (await store.describe("acme")).chunks == 1200
        for number in (0, 599, 1199):
            hits = await store.search("acme", query_of(f"number{number}", SearchMode.SPARSE))
            assert [scored.chunk.ordinal for scored in hits.chunks] == [number]
        places = [ChunkPlace("register", n) for n in range(0, 1200, 7)]
        assert len(await store.get_places("acme", places)) == len(places)
        assert len(await store.get_chunks("acme", [content_hash(text) for text in texts])) == 1200
        many = await store.search("acme", query_of("register entry", SearchMode.DENSE, top_k=1000))
        assert len({scored.chunk.chunk_id for scored in many.chunks}) == 1000
        await put(store, "acme", [make_revision("register", ["the register is closed"], revision=2)])
        for mode in SearchMode:
            hits = await store.search("acme", query_of("entry register closed", mode, top_k=50))
            assert [scored.chunk.text for scored in hits.chunks] == ["the register is closed"]
        assert (await store.describe("acme")).chunks == 1

    async def test_a_document_without_chunks(self, library: VectorStore) -> None:
        """It is known, hides what it had, and nothing of it is found."""
        await put(library, "acme", [make_revision("tides", [], revision=2)])
        assert "tides" not in documents_of(await library.search("acme", query_of("moon water", top_k=50)))
        document = (await library.get_documents("acme", ["tides"]))["tides"]
        assert (document.revision, document.chunk_count) == (2, 0)

    @pytest.mark.parametrize("text", _ODD)
    async def test_odd_characters_stay(self, store: VectorStore, text: str) -> None:
        """Characters without a shape of their own are kept in texts, titles, metadata, ids and addresses."""
        revision = make_revision(text, [text], title=text, source_uri=text, metadata={"note": text})
        await put(store, "acme", [revision])
        hits = await store.search("acme", query_of("compass"))
        assert [scored.chunk for scored in hits.chunks] == [revision.chunks[0].chunk]
        assert await store.get_documents("acme", [text]) == {text: revision.document}
        equal = query_of("compass", condition=compare("note", Operator.EQUAL, text))
        assert documents_of(await store.search("acme", equal)) == [text]
        assert await store.get_places("acme", [ChunkPlace(text, 0)])

    async def test_filters_tell_texts_apart_exactly(self, store: VectorStore) -> None:
        """Case, spaces, composition of accents, wildcards and stop words all count in comparisons."""
        values = ["A", "a", " a", "a ", "é", "e\u0301", "a*", "a?", "the", "The", "a-b", "a b", "", "\\", "10", "1e1"]
        await put(
            store,
            "acme",
            [make_revision(f"d{n}", ["compass"], metadata={"v": value}) for n, value in enumerate(values)],
        )
        for number, value in enumerate(values):
            for condition in (compare("v", Operator.EQUAL, value), compare("v", Operator.IN, value, "zzz")):
                hits = await store.search("acme", query_of("compass", top_k=50, condition=condition))
                assert documents_of(hits) == [f"d{number}"], value
            holding = compare("v", Operator.CONTAINS, value)
            hits = await store.search("acme", query_of("compass", SearchMode.DENSE, top_k=50, condition=holding))
            expected = {f"d{n}" for n, other in enumerate(values) if value in other}
            assert set(documents_of(hits)) == expected, value

    async def test_contains_reaches_any_depth(self, store: VectorStore) -> None:
        """A text held by few chunks only is found among many that rank before them."""
        texts = [f"water everywhere {n}" for n in range(300)]
        await put(store, "acme", [make_revision("many", texts, source_uri="https://example.org/Common*Page")])
        await put(
            store, "acme", [make_revision("few", ["stone and water"], source_uri="https://example.org/RarE*page")]
        )
        for mode in SearchMode:
            condition = compare("_source_uri", Operator.CONTAINS, "RarE*")
            hits = await store.search("acme", query_of("water everywhere", mode, top_k=2, condition=condition))
            assert documents_of(hits) == ["few"]

    async def test_a_long_text_is_kept_whole(self, store: VectorStore) -> None:
        """A chunk of 200,000 characters goes in, is found, and comes back as it was."""
        text = " ".join(f"word{n}" for n in range(22_000))
        await put(store, "acme", [make_revision("long", [text])])
        hits = await store.search("acme", query_of("word21999", SearchMode.SPARSE))
        assert [scored.chunk.text == text for scored in hits.chunks] == [True]
        assert (await store.get_chunks("acme", [content_hash(text)]))[content_hash(text)].chunk is not None

    async def test_fields_of_two_tenants_may_differ_in_kind(self, store: VectorStore) -> None:
        """A name is a number for one and a text for another, and its case counts."""
        await put(store, "acme", [make_revision("a", ["compass"], metadata={"size": 3, "Size": "big"})])
        await put(store, "other", [make_revision("b", ["compass"], metadata={"size": "small", "Size": True})])
        for tenant, condition, expected in (
            ("acme", compare("size", Operator.GREATER, 2), ["a"]),
            ("acme", compare("Size", Operator.EQUAL, "big"), ["a"]),
            ("other", compare("size", Operator.EQUAL, "small"), ["b"]),
            ("other", compare("Size", Operator.EQUAL, True), ["b"]),
        ):
            assert documents_of(await store.search(tenant, query_of("compass", condition=condition))) == expected

    async def test_too_many_fields_are_refused(self, store: VectorStore) -> None:
        """More than 256 are a mistake of naming, and nothing is written."""
        await put(store, "acme", [make_revision("a", ["compass"])])
        with pytest.raises(InvalidRequest, match="256"):
            await put(store, "acme", [make_revision("b", ["x"], metadata={f"f{n}": n for n in range(257)})])
        assert set(await store.get_documents("acme", ["a", "b"])) == {"a"}
