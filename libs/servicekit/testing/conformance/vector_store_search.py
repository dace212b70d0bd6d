"""What searching and reading any vector store must do; part of `vector_store.py` beside this file."""

from dataclasses import replace

import pytest

from servicekit.adapters.memory.embedder import embed_words
from servicekit.domain.chunk import MetadataScalar
from servicekit.domain.filter import All, Any, FieldKind, Filter, Not, Operator
from servicekit.errors import InvalidRequest
from servicekit.ports.vector_store import SearchMode, VectorStore
from servicekit.testing.conformance.vector_store_corpus import WithLibrary, compare, documents_of, query_of
from servicekit.testing.documents import content_hash, make_revision, put


class SearchConformance(WithLibrary):
    """Behaviour of searches and of everything that is read."""

    async def test_a_ping_returns(self, store: VectorStore) -> None:
        """A store that is open answers its ping."""
        await store.ping()

    @pytest.mark.parametrize("mode", list(SearchMode))
    async def test_an_unknown_tenant_has_an_empty_corpus(self, store: VectorStore, mode: SearchMode) -> None:
        """Every read of a tenant that never wrote finds nothing and raises nothing."""
        assert (await store.search("nobody", query_of("water", mode))).chunks == ()
        assert await store.get_chunks("nobody", [content_hash("x")]) == {}
        assert await store.get_documents("nobody", ["x"]) == {}
        assert await store.list_documents("nobody", page_size=5) in ((), [])
        state = await store.describe("nobody")
        assert (state.version, state.documents, state.chunks, dict(state.fields)) == (0, 0, 0, {})

    @pytest.mark.parametrize("mode", list(SearchMode))
    async def test_a_search_ranks_the_fitting_chunk_first(self, library: VectorStore, mode: SearchMode) -> None:
        """Each way of searching finds the chunk that shares its words, whole and as it was stored."""
        hits = await library.search("acme", query_of("consumer commits offset", mode))
        best = hits.chunks[0]
        assert (
            best.chunk
            == make_revision(
                "kafka",
                ["topics have partitions and offsets", "a consumer commits its offset"],
                title="Kafka",
                source_uri="https://example.org/kafka",
                metadata={"lang": "en", "year": 2021, "draft": False, "Size": 1.5},
            )
            .chunks[1]
            .chunk
        )
        assert [scored.rank for scored in hits.chunks] == list(range(1, len(hits.chunks) + 1))
        scores = [scored.score for scored in hits.chunks]
        assert scores == sorted(scores, reverse=True)
        own = {"dense", "sparse"} if mode is SearchMode.HYBRID else {mode.value}
        assert set(hits.stages_s) in ({mode.value}, {"fuse", *own})  # a store may do it all in one stage
        assert all(seconds >= 0 for seconds in hits.stages_s.values())

    async def test_each_score_is_of_its_own_stage(self, library: VectorStore) -> None:
        """A dense search gives cosines, a sparse one BM25, a hybrid both and their fusion between 0 and 1."""
        dense = (await library.search("acme", query_of("flour water", SearchMode.DENSE))).chunks[0]
        sparse = (await library.search("acme", query_of("flour water", SearchMode.SPARSE))).chunks[0]
        hybrid = (await library.search("acme", query_of("flour water"))).chunks[0]
        assert (dense.sparse_score, sparse.dense_score) == (None, None)
        assert dense.score == dense.dense_score == pytest.approx(hybrid.dense_score, abs=1e-5)
        assert sparse.score == sparse.sparse_score == pytest.approx(hybrid.sparse_score, abs=1e-5)
        assert -1 <= dense.score <= 1 < sparse.score + 1
        assert hybrid.score == pytest.approx(1.0)

    async def test_the_weight_decides_between_the_rankings(self, library: VectorStore) -> None:
        """With weight 1 the vectors alone rank, with weight 0 the words alone."""
        mixed = query_of("moon sea", vector=embed_words("flour water salt and yeast make bread"), top_k=1)
        by_vector = await library.search("acme", replace(mixed, dense_weight=1.0))
        by_words = await library.search("acme", replace(mixed, dense_weight=0.0))
        assert documents_of(by_vector) == ["bread"]
        assert documents_of(by_words) == ["tides"]

    async def test_top_k_bounds_and_may_exceed_the_corpus(self, library: VectorStore) -> None:
        """No more chunks than asked for, and no more than there are."""
        assert len((await library.search("acme", query_of("water", SearchMode.DENSE, top_k=2))).chunks) == 2
        assert len((await library.search("acme", query_of("water", SearchMode.DENSE, top_k=100))).chunks) == 4

    async def test_a_query_without_known_words_finds_nothing_sparse(self, library: VectorStore) -> None:
        """Full-text search has no answer to words that no chunk holds."""
        for text in ("xylophone", "the", "?!", "\x00"):
            assert (await library.search("acme", query_of(text, SearchMode.SPARSE))).chunks == ()

    async def test_a_vector_of_another_length_is_refused(self, library: VectorStore) -> None:
        """A dense search needs a vector of the store's own length."""
        for vector in (None, (1.0,) * 3):
            with pytest.raises(InvalidRequest):
                await library.search("acme", query_of("x", SearchMode.DENSE, vector=vector, top_k=3))

    @pytest.mark.parametrize(
        ("condition", "expected"),
        [
            (compare("lang", Operator.EQUAL, "en"), {"kafka", "tides"}),
            (compare("lang", Operator.NOT_EQUAL, "en"), {"bread"}),
            (compare("year", Operator.NOT_EQUAL, 2021), {"bread", "tides"}),
            (Not(compare("year", Operator.EQUAL, 2021)), {"bread", "tides"}),
            (compare("lang", Operator.IN, "de", "fr"), {"bread"}),
            (compare("year", Operator.GREATER, 2021), {"bread"}),
            (compare("year", Operator.GREATER_EQUAL, 2021.0), {"kafka", "bread"}),
            (compare("year", Operator.LESS, 2024), {"kafka"}),
            (compare("year", Operator.LESS_EQUAL, 2024), {"kafka", "bread"}),
            (compare("year", Operator.LESS, -1e308), set()),
            (compare("lang", Operator.LESS, "e"), {"bread"}),
            (compare("draft", Operator.EQUAL, True), {"bread"}),
            (compare("Size", Operator.EQUAL, 1.5), {"kafka"}),
            (compare("lang", Operator.CONTAINS, "e"), {"kafka", "bread", "tides"}),
            (compare("lang", Operator.CONTAINS, "%"), set()),
            (compare("lang", Operator.EQUAL, "x' OR '1'='1"), set()),
            (compare("_document_id", Operator.EQUAL, "tides"), {"tides"}),
            (compare("_source_uri", Operator.CONTAINS, "example.org"), {"kafka"}),
            (compare("_title", Operator.EQUAL, "Kafka"), {"kafka"}),
            (
                All((compare("lang", Operator.EQUAL, "en"), compare("year", Operator.EQUAL, 2021))),
                {"kafka"},
            ),
            (
                Any((compare("lang", Operator.EQUAL, "de"), compare("year", Operator.EQUAL, 2021))),
                {"kafka", "bread"},
            ),
            (Not(Any((compare("lang", Operator.EQUAL, "de"),))), {"kafka", "tides"}),
        ],
    )
    async def test_a_filter_keeps_what_it_says(
        self, library: VectorStore, condition: Filter, expected: set[str]
    ) -> None:
        """Filters mean the same in every store and every mode; a missing field is unequal to everything."""
        text = "topics offsets consumer water bread moon"
        for mode in SearchMode:
            hits = await library.search("acme", query_of(text, mode, condition=condition))
            assert set(documents_of(hits)) == expected

    async def test_an_unknown_field_is_refused_by_name(self, library: VectorStore) -> None:
        """The refusal names the field, the known ones and the nearest."""
        with pytest.raises(InvalidRequest, match=r"unknown field 'langs'.*Size, draft, lang, year.*mean 'lang'"):
            await library.search("acme", query_of("x", condition=compare("langs", Operator.EQUAL, "en")))

    @pytest.mark.parametrize(
        "comparison",
        [
            compare("lang", Operator.EQUAL, 3),
            compare("year", Operator.EQUAL, "2021"),
            compare("draft", Operator.EQUAL, 1),
            compare("year", Operator.CONTAINS, 20),
            compare("_title", Operator.EQUAL, True),
        ],
    )
    async def test_a_value_of_another_kind_is_refused(self, library: VectorStore, comparison: Filter) -> None:
        """A comparison that could never hold is an error, not an empty answer."""
        with pytest.raises(InvalidRequest) as caught:
            await library.search("acme", query_of("x", condition=Not(comparison)))
        assert caught.value.reason == "FILTER_KIND_MISMATCH"

    async def test_a_filter_is_no_limit_to_depth(self, store: VectorStore) -> None:
        """The filter applies before the ranking is cut, so that rare documents are found among many."""
        texts = [f"water everywhere number {number}" for number in range(150)]
        await put(store, "acme", [make_revision("many", texts, metadata={"kind": "common"})])
        await put(store, "acme", [make_revision("rare", ["stone with little water in it"], metadata={"kind": "rare"})])
        condition = compare("kind", Operator.EQUAL, "rare")
        for mode in SearchMode:
            hits = await store.search("acme", query_of("water everywhere", mode, top_k=1, condition=condition))
            assert documents_of(hits) == ["rare"]

    async def test_metadata_keeps_one_kind_a_field(self, library: VectorStore) -> None:
        """A value of another kind is refused with nothing written."""
        before = await library.describe("acme")
        with pytest.raises(InvalidRequest, match="year"):
            await put(library, "acme", [make_revision("x", ["y"], metadata={"year": "soon"})])
        assert await library.describe("acme") == before
        assert before.fields == {
            "lang": FieldKind.TEXT,
            "year": FieldKind.NUMBER,
            "draft": FieldKind.BOOLEAN,
            "Size": FieldKind.NUMBER,
        }

    async def test_metadata_comes_back_as_it_went_in(self, store: VectorStore) -> None:
        """Whole numbers stay whole and large, truth values stay truth values."""
        metadata: dict[str, MetadataScalar] = {"n": 2**60 + 1, "f": 0.1, "b": True, "t": "é'\"\n", "N": 1}
        await put(store, "acme", [make_revision("d", ["text here"], metadata=metadata)])
        hits = await store.search("acme", query_of("text here"))
        assert dict(hits.chunks[0].chunk.metadata) == metadata
        assert dict((await store.get_documents("acme", ["d"]))["d"].metadata) == metadata
        assert isinstance(hits.chunks[0].chunk.metadata["n"], int)

    async def test_tenants_see_only_their_own(self, library: VectorStore) -> None:
        """Nothing of one tenant shows for another: chunks, hashes, documents, fields, statistics."""
        await put(library, "other", [make_revision("kafka", ["a writer from Prague"])])
        for mode in SearchMode:
            hits = await library.search("other", query_of("offset writer", mode))
            assert {scored.chunk.text for scored in hits.chunks} == {"a writer from Prague"}
        assert await library.get_chunks("other", [content_hash("a consumer commits its offset")]) == {}
        assert set(await library.get_documents("other", ["kafka", "bread"])) == {"kafka"}
        with pytest.raises(InvalidRequest):
            await library.search("other", query_of("x", condition=compare("lang", Operator.EQUAL, "en")))
        assert (await library.describe("acme")).version == 1

    @pytest.mark.parametrize("tenant", ["Acme", "a/../b", "ü" * 60, "x y", "-", "acme.chunks"])
    async def test_any_tenant_name_works(self, library: VectorStore, tenant: str) -> None:
        """Names that a file system or a query language would stumble over are names like any other."""
        await put(library, tenant, [make_revision("d", ["a lonely cloud"])])
        assert documents_of(await library.search(tenant, query_of("cloud"))) == ["d"]
        assert documents_of(await library.search("acme", query_of("cloud", SearchMode.SPARSE))) == []
