"""What writing to any vector store must do, one writer or many; part of `vector_store.py` beside this file."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from servicekit.errors import NotFound
from servicekit.ports.vector_store import SearchMode, VectorStore
from servicekit.testing.conformance.vector_store_corpus import WithLibrary, documents_of, query_of
from servicekit.testing.documents import NOON, content_hash, make_revision, put

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


class WriteConformance(WithLibrary):
    """Behaviour of replacements and deletions, and of searches while they go on."""

    async def test_repeating_a_write_changes_nothing(self, library: VectorStore) -> None:
        """The same revision written again leaves the same documents, chunks and ranking."""
        query = query_of("water bread")
        before = [scored.chunk for scored in (await library.search("acme", query)).chunks]
        revision = make_revision(
            "bread",
            ["flour water salt and yeast make bread"],
            metadata={"lang": "de", "year": 2024, "draft": True},
        )
        for _ in range(3):
            await put(library, "acme", [revision])
        assert [scored.chunk for scored in (await library.search("acme", query)).chunks] == before
        state = await library.describe("acme")
        assert (state.documents, state.chunks) == (3, 4)

    async def test_the_corpus_version_grows_with_every_change(self, library: VectorStore) -> None:
        """Each write returns a higher version, and searches answer with the version they saw."""
        versions = [(await library.describe("acme")).version]
        versions.append(await put(library, "acme", [make_revision("new", ["fresh text"])]))
        versions.append(await library.delete_document("acme", "new", erase_time=NOON))
        assert versions == sorted(set(versions))
        assert (await library.search("acme", query_of("water"))).corpus_version == versions[-1]

    async def test_a_new_revision_replaces_the_old_one(self, library: VectorStore) -> None:
        """After a replacement only the new chunks are found, and the old texts stay readable by hash."""
        await put(library, "acme", [make_revision("tides", ["the sun pulls a little too"], revision=2)])
        texts = {s.chunk.text for s in (await library.search("acme", query_of("moon pulls sun", top_k=50))).chunks}
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
        await put(library, "acme", [make_revision("tides", [text], revision=2)])
        stored = (await library.get_chunks("acme", [content_hash(text)]))[content_hash(text)]
        assert stored.chunk is not None
        assert stored.chunk.revision == 2

    async def test_deletion_leaves_a_tombstone(self, library: VectorStore) -> None:
        """A deleted document is found by nothing, its texts of all revisions are gone, its id is remembered."""
        await put(library, "acme", [make_revision("tides", ["the sun pulls"], revision=2)])
        erase_time = NOON + timedelta(hours=1)
        await library.delete_document("acme", "tides", erase_time=erase_time)
        for mode in SearchMode:
            hits = await library.search("acme", query_of("the sun moon pulls water", mode))
            assert "tides" not in documents_of(hits)
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
        await put(library, "acme", [make_revision("copy", [text])])
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
        await put(library, "acme", [make_revision("tides", ["the sea again"], revision=2)])
        assert documents_of(await library.search("acme", query_of("sea", top_k=1))) == ["tides"]
        assert (await library.get_documents("acme", ["tides"]))["tides"].delete_time is None

    async def test_documents_are_listed_in_pages(self, store: VectorStore) -> None:
        """Pages follow each other by document id, without gap or repetition."""
        names = [f"d{number:02}" for number in range(7)]
        await put(store, "acme", [make_revision(name, [f"text {name}"]) for name in names])
        listed: list[str] = []
        while page := await store.list_documents("acme", page_size=3, after=listed[-1] if listed else ""):
            assert len(page) <= 3
            listed += [document.document_id for document in page]
        assert listed == names

    async def test_documents_are_listed_by_code_point(self, store: VectorStore) -> None:
        """Case, accents and scripts order as their characters' numbers, in the list and for its pages."""
        names = ["A", "Z", "_", "a", "a b", "a/b", "b", "é", "日本", "\uff21", "👩"]
        await put(store, "acme", [make_revision(name, ["text"]) for name in reversed(names)])
        assert [one.document_id for one in await store.list_documents("acme", page_size=50)] == names
        after = [one.document_id for one in await store.list_documents("acme", page_size=3, after="b")]
        assert after == ["é", "日本", "\uff21"]

    @pytest.mark.parametrize("text", ODD_TEXTS)
    async def test_odd_texts_are_stored_and_searched_as_they_are(self, store: VectorStore, text: str) -> None:
        """Quotes, operators, markup and every script go in, come out and can be asked for."""
        await put(store, "acme", [make_revision(text[:20], [text], title=text)])
        for mode in (SearchMode.DENSE, SearchMode.HYBRID):
            hits = await store.search("acme", query_of(text, mode))
            assert [scored.chunk.text for scored in hits.chunks] == [text]
            assert hits.chunks[0].chunk.title == text
        await store.search("acme", query_of(text, SearchMode.SPARSE))
        assert (await store.get_documents("acme", [text[:20]]))[text[:20]].title == text
        await store.delete_document("acme", text[:20], erase_time=NOON)

    @pytest.mark.parametrize("mode", list(SearchMode))
    async def test_a_replacement_is_one_instant(self, library: VectorStore, mode: SearchMode) -> None:
        """Searches that run during replacements see one whole revision: never both, never neither."""
        query = query_of("compass needle", mode, top_k=20)

        def revision(number: int) -> Sequence[str]:
            return [f"compass needle chapter {part} edition {number}" for part in range(4)]

        await put(library, "acme", [make_revision("swap", revision(1))])
        done = asyncio.Event()

        async def write() -> None:
            for number in range(2, 12):
                await put(library, "acme", [make_revision("swap", revision(number), revision=number)])
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
            *(put(store, "acme", [make_revision(f"d{n}", [f"text {n}"])]) for n in range(12))
        )
        assert sorted(versions) == list(range(1, 13))
        assert (await store.describe("acme")).documents == 12
