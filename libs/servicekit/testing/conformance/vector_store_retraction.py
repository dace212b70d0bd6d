"""What retracting a document must do in any vector store; part of `vector_store.py` beside this file."""

from datetime import timedelta

import pytest

from servicekit.errors import NotFound, NotReady
from servicekit.ports.vector_store import ChunkPlace, SearchMode, VectorStore
from servicekit.testing.conformance.vector_store_corpus import WithLibrary, documents_of, query_of
from servicekit.testing.documents import NOON, content_hash, make_revision, put

_TIDES = "the moon pulls the water of the sea"
_RETRACTED = NOON + timedelta(hours=1)


class RetractionConformance(WithLibrary):
    """Behaviour of documents that are hidden, and of all that still knows them."""

    async def test_a_retracted_document_is_found_by_no_search(self, library: VectorStore) -> None:
        """The first search that begins afterwards misses it, in every mode, and says the new version."""
        before = (await library.describe("acme")).version
        version = await library.retract_document("acme", "tides", retract_time=_RETRACTED)
        assert version > before
        for mode in SearchMode:
            hits = await library.search("acme", query_of("moon pulls water sea", mode))
            assert "tides" not in documents_of(hits)
            assert hits.corpus_version == version
        assert await library.get_places("acme", [ChunkPlace("tides", 0)]) == {}
        state = await library.describe("acme")
        assert (state.documents, state.chunks) == (2, 3)

    async def test_a_retracted_document_stays_readable(self, library: VectorStore) -> None:
        """Its record stays as it was, with the time, and its texts answer to their hashes: answers cited them."""
        before = (await library.get_documents("acme", ["tides"]))["tides"]
        await library.retract_document("acme", "tides", retract_time=_RETRACTED)
        after = (await library.get_documents("acme", ["tides"]))["tides"]
        assert (after.retract_time, after.delete_time) == (_RETRACTED, None)
        assert (after.revision, after.content_hash, after.fingerprint, dict(after.metadata)) == (
            before.revision,
            before.content_hash,
            before.fingerprint,
            dict(before.metadata),
        )
        stored = (await library.get_chunks("acme", [content_hash(_TIDES)]))[content_hash(_TIDES)]
        assert stored.chunk is not None
        assert stored.chunk.text == _TIDES

    async def test_retracted_documents_are_listed_on_request(self, library: VectorStore) -> None:
        """A list leaves them out unless it is asked to include them."""
        await library.retract_document("acme", "kafka", retract_time=_RETRACTED)
        listed = [one.document_id for one in await library.list_documents("acme", page_size=9)]
        assert listed == ["bread", "tides"]
        everything = await library.list_documents("acme", page_size=2, include_retracted=True)
        assert [(one.document_id, one.retract_time) for one in everything] == [("bread", None), ("kafka", _RETRACTED)]

    async def test_a_new_revision_brings_a_retracted_document_back(self, library: VectorStore) -> None:
        """It is found with the new chunks alone, and is no longer retracted."""
        await library.retract_document("acme", "tides", retract_time=_RETRACTED)
        await put(library, "acme", [make_revision("tides", ["the sea was corrected"], revision=2)])
        hits = await library.search("acme", query_of("moon sea corrected", top_k=20))
        texts = [scored.chunk.text for scored in hits.chunks if scored.chunk.document_id == "tides"]
        assert texts == ["the sea was corrected"]
        assert (await library.get_documents("acme", ["tides"]))["tides"].retract_time is None
        await library.retract_document("acme", "tides", retract_time=_RETRACTED)
        assert "tides" not in documents_of(await library.search("acme", query_of("sea corrected")))

    async def test_a_retracted_document_can_be_deleted(self, library: VectorStore) -> None:
        """Erasure takes its texts and leaves a tombstone, as for any other."""
        await library.retract_document("acme", "tides", retract_time=_RETRACTED)
        erase_time = NOON + timedelta(hours=2)
        await library.delete_document("acme", "tides", erase_time=erase_time)
        stored = (await library.get_chunks("acme", [content_hash(_TIDES)]))[content_hash(_TIDES)]
        assert (stored.chunk, stored.erase_time) == (None, erase_time)
        assert (await library.get_documents("acme", ["tides"]))["tides"].delete_time == erase_time
        listed = await library.list_documents("acme", page_size=9, include_retracted=True)
        assert [one.document_id for one in listed] == ["bread", "kafka"]

    async def test_only_what_can_be_found_is_retracted(self, library: VectorStore) -> None:
        """Unknown, deleted and other tenants' documents are not found; a second retraction is refused."""
        await library.delete_document("acme", "bread", erase_time=NOON)
        for tenant, document_id in (("acme", "bread"), ("acme", "nothing"), ("nobody", "kafka")):
            with pytest.raises(NotFound):
                await library.retract_document(tenant, document_id, retract_time=_RETRACTED)
        await library.retract_document("acme", "tides", retract_time=_RETRACTED)
        version = (await library.describe("acme")).version
        with pytest.raises(NotReady) as caught:
            await library.retract_document("acme", "tides", retract_time=_RETRACTED)
        assert caught.value.reason == "DOCUMENT_RETRACTED"
        assert (await library.describe("acme")).version == version

    async def test_a_retraction_leaves_other_documents_alone(self, library: VectorStore) -> None:
        """The same words in another document are found as before."""
        await put(library, "acme", [make_revision("copy", [_TIDES])])
        await library.retract_document("acme", "tides", retract_time=_RETRACTED)
        for mode in SearchMode:
            assert documents_of(await library.search("acme", query_of("moon pulls", mode, top_k=1))) == ["copy"]
