"""What every vector store must do. Inherit it in a test class that has a `store` fixture (vectors of 64 values).

Run by `tests/contract/test_vector_store_*.py`.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from servicekit.adapters.memory.embedder import embed_words
from servicekit.domain.chunk import MetadataScalar
from servicekit.domain.filter import All, Any, Comparison, FieldKind, Filter, Not, Operator
from servicekit.errors import InvalidRequest, NotFound
from servicekit.ports.vector_store import SearchHits, SearchMode, SearchQuery, VectorStore
from servicekit.testing.documents import NOON, content_hash, make_revision

ODD_TEXTS = (
    'she said "begin" and it began',
    "it's 100% O'Brien; DROP TABLE chunks --",
    "zero\u200bwidth joiner 👩\u200d🚀 and flag 🇨🇭",
    "日本語の羅針盤 compass",
    "مرحبا بالعالم compass",
    "e\u0301 combining and é composed",
    "back\\slash and new\nline and tab\t",
    "(a OR b) AND NOT c~2^3 field:value* [1 TO 2]",
)


def _query(text: str, mode: SearchMode = SearchMode.HYBRID, **options: object) -> SearchQuery:
    values = {"vector": embed_words(text), "top_k": 10} | options
    return SearchQuery(mode=mode, text=text, **values)  # type: ignore[arg-type]  # spelled at each call


def _compare(field: str, operator: Operator, *values: MetadataScalar) -> Comparison:
    return Comparison(field, operator, values)


def _documents(hits: SearchHits) -> list[str]:
    return [scored.chunk.document_id for scored in hits.chunks]


class VectorStoreConformance:
    """Behaviour that the retriever relies on."""

    @pytest.fixture
    async def library(self, store: VectorStore) -> VectorStore:
        """A tenant `acme` with three documents about different things."""
        await store.replace_documents(
            "acme",
            [
                make_revision(
                    "kafka",
                    ["topics have partitions and offsets", "a consumer commits its offset"],
                    title="Kafka",
                    source_uri="https://example.org/kafka",
                    metadata={"lang": "en", "year": 2021, "draft": False, "Size": 1.5},
                ),
                make_revision(
                    "bread",
                    ["flour water salt and yeast make bread"],
                    metadata={"lang": "de", "year": 2024, "draft": True},
                ),
                make_revision("tides", ["the moon pulls the water of the sea"], metadata={"lang": "en"}),
            ],
        )
        return store

    async def test_a_ping_returns(self, store: VectorStore) -> None:
        """A store that is open answers its ping."""
        await store.ping()

    @pytest.mark.parametrize("mode", list(SearchMode))
    async def test_an_unknown_tenant_has_an_empty_corpus(self, store: VectorStore, mode: SearchMode) -> None:
        """Every read of a tenant that never wrote finds nothing and raises nothing."""
        assert (await store.search("nobody", _query("water", mode))).chunks == ()
        assert await store.get_chunks("nobody", [content_hash("x")]) == {}
        assert await store.get_documents("nobody", ["x"]) == {}
        assert await store.list_documents("nobody", page_size=5) in ((), [])
        state = await store.describe("nobody")
        assert (state.version, state.documents, state.chunks, dict(state.fields)) == (0, 0, 0, {})

    @pytest.mark.parametrize("mode", list(SearchMode))
    async def test_a_search_ranks_the_fitting_chunk_first(self, library: VectorStore, mode: SearchMode) -> None:
        """Each way of searching finds the chunk that shares its words, whole and as it was stored."""
        hits = await library.search("acme", _query("consumer commits offset", mode))
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
        assert set(hits.stages_s) == {"fuse", *({"dense", "sparse"} if mode is SearchMode.HYBRID else {mode})}

    async def test_each_score_is_of_its_own_stage(self, library: VectorStore) -> None:
        """A dense search gives cosines, a sparse one BM25, a hybrid both and their fusion between 0 and 1."""
        dense = (await library.search("acme", _query("flour water", SearchMode.DENSE))).chunks[0]
        sparse = (await library.search("acme", _query("flour water", SearchMode.SPARSE))).chunks[0]
        hybrid = (await library.search("acme", _query("flour water"))).chunks[0]
        assert (dense.sparse_score, sparse.dense_score) == (None, None)
        assert dense.score == dense.dense_score == pytest.approx(hybrid.dense_score, abs=1e-5)
        assert sparse.score == sparse.sparse_score == pytest.approx(hybrid.sparse_score, abs=1e-5)
        assert -1 <= dense.score <= 1 < sparse.score + 1
        assert hybrid.score == pytest.approx(1.0)

    async def test_the_weight_decides_between_the_rankings(self, library: VectorStore) -> None:
        """With weight 1 the vectors alone rank, with weight 0 the words alone."""
        mixed = SearchQuery(
            SearchMode.HYBRID, "moon sea", embed_words("flour water salt and yeast make bread"), top_k=1
        )
        by_vector = await library.search("acme", _with(mixed, dense_weight=1.0))
        by_words = await library.search("acme", _with(mixed, dense_weight=0.0))
        assert _documents(by_vector) == ["bread"]
        assert _documents(by_words) == ["tides"]

    async def test_top_k_bounds_and_may_exceed_the_corpus(self, library: VectorStore) -> None:
        """No more chunks than asked for, and no more than there are."""
        assert len((await library.search("acme", _query("water", SearchMode.DENSE, top_k=2))).chunks) == 2
        assert len((await library.search("acme", _query("water", SearchMode.DENSE, top_k=100))).chunks) == 4

    async def test_a_query_without_known_words_finds_nothing_sparse(self, library: VectorStore) -> None:
        """Full-text search has no answer to words that no chunk holds."""
        for text in ("xylophone", "the", "?!", "\x00"):
            assert (await library.search("acme", _query(text, SearchMode.SPARSE))).chunks == ()

    async def test_a_vector_of_another_length_is_refused(self, library: VectorStore) -> None:
        """A dense search needs a vector of the store's own length."""
        for vector in (None, (1.0,) * 3):
            with pytest.raises(InvalidRequest):
                await library.search("acme", SearchQuery(SearchMode.DENSE, "x", vector, top_k=3))

    @pytest.mark.parametrize(
        ("condition", "expected"),
        [
            (_compare("lang", Operator.EQUAL, "en"), {"kafka", "tides"}),
            (_compare("lang", Operator.NOT_EQUAL, "en"), {"bread"}),
            (_compare("year", Operator.NOT_EQUAL, 2021), {"bread", "tides"}),
            (Not(_compare("year", Operator.EQUAL, 2021)), {"bread", "tides"}),
            (_compare("lang", Operator.IN, "de", "fr"), {"bread"}),
            (_compare("year", Operator.GREATER, 2021), {"bread"}),
            (_compare("year", Operator.GREATER_EQUAL, 2021.0), {"kafka", "bread"}),
            (_compare("year", Operator.LESS, 2024), {"kafka"}),
            (_compare("year", Operator.LESS_EQUAL, 2024), {"kafka", "bread"}),
            (_compare("year", Operator.LESS, -1e308), set()),
            (_compare("lang", Operator.LESS, "e"), {"bread"}),
            (_compare("draft", Operator.EQUAL, True), {"bread"}),
            (_compare("Size", Operator.EQUAL, 1.5), {"kafka"}),
            (_compare("lang", Operator.CONTAINS, "e"), {"kafka", "bread", "tides"}),
            (_compare("lang", Operator.CONTAINS, "%"), set()),
            (_compare("lang", Operator.EQUAL, "x' OR '1'='1"), set()),
            (_compare("_document_id", Operator.EQUAL, "tides"), {"tides"}),
            (_compare("_source_uri", Operator.CONTAINS, "example.org"), {"kafka"}),
            (_compare("_title", Operator.EQUAL, "Kafka"), {"kafka"}),
            (
                All((_compare("lang", Operator.EQUAL, "en"), _compare("year", Operator.EQUAL, 2021))),
                {"kafka"},
            ),
            (
                Any((_compare("lang", Operator.EQUAL, "de"), _compare("year", Operator.EQUAL, 2021))),
                {"kafka", "bread"},
            ),
            (Not(Any((_compare("lang", Operator.EQUAL, "de"),))), {"kafka", "tides"}),
        ],
    )
    async def test_a_filter_keeps_what_it_says(
        self, library: VectorStore, condition: Filter, expected: set[str]
    ) -> None:
        """Filters mean the same in every store and every mode; a missing field is unequal to everything."""
        text = "topics offsets consumer water bread moon"
        for mode in SearchMode:
            hits = await library.search("acme", _query(text, mode, condition=condition))
            assert set(_documents(hits)) == expected

    async def test_an_unknown_field_is_refused_by_name(self, library: VectorStore) -> None:
        """The refusal names the field, the known ones and the nearest."""
        with pytest.raises(InvalidRequest, match=r"unknown field 'langs'.*Size, draft, lang, year.*mean 'lang'"):
            await library.search("acme", _query("x", condition=_compare("langs", Operator.EQUAL, "en")))

    @pytest.mark.parametrize(
        "comparison",
        [
            _compare("lang", Operator.EQUAL, 3),
            _compare("year", Operator.EQUAL, "2021"),
            _compare("draft", Operator.EQUAL, 1),
            _compare("year", Operator.CONTAINS, 20),
            _compare("_title", Operator.EQUAL, True),
        ],
    )
    async def test_a_value_of_another_kind_is_refused(self, library: VectorStore, comparison: Filter) -> None:
        """A comparison that could never hold is an error, not an empty answer."""
        with pytest.raises(InvalidRequest) as caught:
            await library.search("acme", _query("x", condition=Not(comparison)))
        assert caught.value.reason == "FILTER_KIND_MISMATCH"

    async def test_a_filter_is_no_limit_to_depth(self, store: VectorStore) -> None:
        """The filter applies before the ranking is cut, so that rare documents are found among many."""
        texts = [f"water everywhere number {number}" for number in range(150)]
        await store.replace_documents("acme", [make_revision("many", texts, metadata={"kind": "common"})])
        await store.replace_documents(
            "acme", [make_revision("rare", ["stone with little water in it"], metadata={"kind": "rare"})]
        )
        condition = _compare("kind", Operator.EQUAL, "rare")
        for mode in SearchMode:
            hits = await store.search("acme", _query("water everywhere", mode, top_k=1, condition=condition))
            assert _documents(hits) == ["rare"]

    async def test_metadata_keeps_one_kind_a_field(self, library: VectorStore) -> None:
        """A value of another kind is refused with nothing written."""
        before = await library.describe("acme")
        with pytest.raises(InvalidRequest, match="year"):
            await library.replace_documents("acme", [make_revision("x", ["y"], metadata={"year": "soon"})])
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
        await store.replace_documents("acme", [make_revision("d", ["text here"], metadata=metadata)])
        hits = await store.search("acme", _query("text here"))
        assert dict(hits.chunks[0].chunk.metadata) == metadata
        assert dict((await store.get_documents("acme", ["d"]))["d"].metadata) == metadata
        assert isinstance(hits.chunks[0].chunk.metadata["n"], int)

    async def test_tenants_see_only_their_own(self, library: VectorStore) -> None:
        """Nothing of one tenant shows for another: chunks, hashes, documents, fields, statistics."""
        await library.replace_documents("other", [make_revision("kafka", ["a writer from Prague"])])
        for mode in SearchMode:
            hits = await library.search("other", _query("offset writer", mode))
            assert {scored.chunk.text for scored in hits.chunks} == {"a writer from Prague"}
        assert await library.get_chunks("other", [content_hash("a consumer commits its offset")]) == {}
        assert set(await library.get_documents("other", ["kafka", "bread"])) == {"kafka"}
        with pytest.raises(InvalidRequest):
            await library.search("other", _query("x", condition=_compare("lang", Operator.EQUAL, "en")))
        assert (await library.describe("acme")).version == 1

    @pytest.mark.parametrize("tenant", ["Acme", "a/../b", "ü" * 60, "x y", "-", "acme.chunks"])
    async def test_any_tenant_name_works(self, library: VectorStore, tenant: str) -> None:
        """Names that a file system or a query language would stumble over are names like any other."""
        await library.replace_documents(tenant, [make_revision("d", ["a lonely cloud"])])
        assert _documents(await library.search(tenant, _query("cloud"))) == ["d"]
        assert _documents(await library.search("acme", _query("cloud", SearchMode.SPARSE))) == []

    async def test_repeating_a_write_changes_nothing(self, library: VectorStore) -> None:
        """The same revision written again leaves the same documents, chunks and ranking."""
        query = _query("water bread")
        before = [scored.chunk for scored in (await library.search("acme", query)).chunks]
        revision = make_revision(
            "bread",
            ["flour water salt and yeast make bread"],
            metadata={"lang": "de", "year": 2024, "draft": True},
        )
        for _ in range(3):
            await library.replace_documents("acme", [revision])
        assert [scored.chunk for scored in (await library.search("acme", query)).chunks] == before
        state = await library.describe("acme")
        assert (state.documents, state.chunks) == (3, 4)

    async def test_the_corpus_version_grows_with_every_change(self, library: VectorStore) -> None:
        """Each write returns a higher version, and searches answer with the version they saw."""
        versions = [(await library.describe("acme")).version]
        versions.append(await library.replace_documents("acme", [make_revision("new", ["fresh text"])]))
        versions.append(await library.delete_document("acme", "new", erase_time=NOON))
        assert versions == sorted(set(versions))
        assert (await library.search("acme", _query("water"))).corpus_version == versions[-1]

    async def test_a_new_revision_replaces_the_old_one(self, library: VectorStore) -> None:
        """After a replacement only the new chunks are found, and the old texts stay readable by hash."""
        await library.replace_documents("acme", [make_revision("tides", ["the sun pulls a little too"], revision=2)])
        texts = {s.chunk.text for s in (await library.search("acme", _query("moon pulls sun", top_k=50))).chunks}
        assert "the sun pulls a little too" in texts
        assert "the moon pulls the water of the sea" not in texts
        old = content_hash("the moon pulls the water of the sea")
        stored = await library.get_chunks("acme", [old, content_hash("never")])
        assert set(stored) == {old}
        retired = stored[old].chunk
        assert retired is not None
        assert retired.revision == 1
        assert (await library.get_documents("acme", ["tides"]))["tides"].revision == 2

    async def test_the_newest_chunk_answers_to_a_shared_hash(self, library: VectorStore) -> None:
        """Where two revisions hold the same text, its hash gives the newer one."""
        text = "the moon pulls the water of the sea"
        await library.replace_documents("acme", [make_revision("tides", [text], revision=2)])
        stored = (await library.get_chunks("acme", [content_hash(text)]))[content_hash(text)]
        assert stored.chunk is not None
        assert stored.chunk.revision == 2

    async def test_deletion_leaves_a_tombstone(self, library: VectorStore) -> None:
        """A deleted document is found by nothing, its texts of all revisions are gone, its id is remembered."""
        await library.replace_documents("acme", [make_revision("tides", ["the sun pulls"], revision=2)])
        erase_time = NOON + timedelta(hours=1)
        await library.delete_document("acme", "tides", erase_time=erase_time)
        for mode in SearchMode:
            hits = await library.search("acme", _query("the sun moon pulls water", mode))
            assert "tides" not in _documents(hits)
        for text in ("the sun pulls", "the moon pulls the water of the sea"):
            stored = (await library.get_chunks("acme", [content_hash(text)]))[content_hash(text)]
            assert (stored.chunk, stored.erase_time) == (None, erase_time)
        document = (await library.get_documents("acme", ["tides"]))["tides"]
        assert (document.delete_time, document.revision, document.title) == (erase_time, 2, "")
        assert [one.document_id for one in await library.list_documents("acme", page_size=9)] == ["bread", "kafka"]
        assert (await library.describe("acme")).documents == 2

    async def test_a_text_that_another_document_holds_survives_a_deletion(self, library: VectorStore) -> None:
        """Erasing one document does not erase the same words of another."""
        text = "the moon pulls the water of the sea"
        await library.replace_documents("acme", [make_revision("copy", [text])])
        await library.delete_document("acme", "tides", erase_time=NOON)
        stored = (await library.get_chunks("acme", [content_hash(text)]))[content_hash(text)]
        assert stored.chunk is not None
        assert stored.chunk.document_id == "copy"

    async def test_deleting_what_is_not_there_is_not_found(self, library: VectorStore) -> None:
        """Neither an unknown document, nor one already deleted, nor another tenant's can be deleted."""
        await library.delete_document("acme", "tides", erase_time=NOON)
        for tenant, document_id in (("acme", "tides"), ("acme", "nothing"), ("nobody", "kafka")):
            with pytest.raises(NotFound):
                await library.delete_document(tenant, document_id, erase_time=NOON)

    async def test_a_deleted_document_can_come_back(self, library: VectorStore) -> None:
        """A new revision after a deletion is live like any other."""
        await library.delete_document("acme", "tides", erase_time=NOON)
        await library.replace_documents("acme", [make_revision("tides", ["the sea again"], revision=2)])
        assert _documents(await library.search("acme", _query("sea", top_k=1))) == ["tides"]
        assert (await library.get_documents("acme", ["tides"]))["tides"].delete_time is None

    async def test_documents_are_listed_in_pages(self, store: VectorStore) -> None:
        """Pages follow each other by document id, without gap or repetition."""
        names = [f"d{number:02}" for number in range(7)]
        await store.replace_documents("acme", [make_revision(name, [f"text {name}"]) for name in names])
        listed: list[str] = []
        while page := await store.list_documents("acme", page_size=3, after=listed[-1] if listed else ""):
            assert len(page) <= 3
            listed += [document.document_id for document in page]
        assert listed == names

    @pytest.mark.parametrize("text", ODD_TEXTS)
    async def test_odd_texts_are_stored_and_searched_as_they_are(self, store: VectorStore, text: str) -> None:
        """Quotes, operators, markup and every script go in, come out and can be asked for."""
        await store.replace_documents("acme", [make_revision(text[:20], [text], title=text)])
        for mode in (SearchMode.DENSE, SearchMode.HYBRID):
            hits = await store.search("acme", _query(text, mode))
            assert [scored.chunk.text for scored in hits.chunks] == [text]
            assert hits.chunks[0].chunk.title == text
        await store.search("acme", _query(text, SearchMode.SPARSE))
        assert (await store.get_documents("acme", [text[:20]]))[text[:20]].title == text
        await store.delete_document("acme", text[:20], erase_time=NOON)

    @pytest.mark.parametrize("mode", list(SearchMode))
    async def test_a_replacement_is_one_instant(self, library: VectorStore, mode: SearchMode) -> None:
        """Searches that run during replacements see one whole revision: never both, never neither."""
        query = _query("compass needle", mode, top_k=20)

        def revision(number: int) -> Sequence[str]:
            return [f"compass needle chapter {part} edition {number}" for part in range(4)]

        await library.replace_documents("acme", [make_revision("swap", revision(1))])
        done = asyncio.Event()

        async def write() -> None:
            for number in range(2, 12):
                await library.replace_documents("acme", [make_revision("swap", revision(number), revision=number)])
            done.set()

        async def read() -> None:
            last = 0
            while not done.is_set():
                hits = await library.search("acme", query)
                found = [s.chunk.revision for s in hits.chunks if s.chunk.document_id == "swap"]
                assert len(found) == 4
                assert len(set(found)) == 1
                assert hits.corpus_version >= last
                last = hits.corpus_version
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            for _ in range(3):
                tasks.create_task(read())

    async def test_concurrent_writers_lose_nothing(self, store: VectorStore) -> None:
        """Writes to different documents at the same time all land, each with its own version."""
        versions = await asyncio.gather(
            *(store.replace_documents("acme", [make_revision(f"d{n}", [f"text {n}"])]) for n in range(12))
        )
        assert sorted(versions) == list(range(1, 13))
        assert (await store.describe("acme")).documents == 12


def _with(query: SearchQuery, *, dense_weight: float) -> SearchQuery:
    return SearchQuery(query.mode, query.text, query.vector, query.top_k, query.condition, dense_weight)
