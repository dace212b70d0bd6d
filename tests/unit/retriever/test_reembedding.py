"""Indexes move to a new embedding model while they are searched and written."""

import asyncio
from collections.abc import Sequence

import pytest

from servicekit.adapters.memory.embedder import MemoryEmbedder, embed_words
from servicekit.adapters.memory.vector_store import MemoryVectorStore
from servicekit.errors import BackendUnavailable, NotReady
from servicekit.ports.embedder import Embedder, EmbeddingModel, Vector
from servicekit.ports.vector_store import IndexedChunk, SearchHits, SearchMode, SearchQuery
from servicekit.testing.documents import make_revision, put
from services.retriever.index.embedders import MISMATCH, TenantEmbedders
from services.retriever.index.reembedding import WRITE_CHUNKS, Reembedder, check_window

OLD, NEW = MemoryEmbedder(), MemoryEmbedder(32)


class DiedError(Exception):
    """Stands for a kill."""


class FailingEmbedder(MemoryEmbedder):
    """The new model, whose calls fail from the given one on."""

    def __init__(self, *, good_calls: int, error: Exception) -> None:
        super().__init__(32)
        self.calls = 0
        self._good_calls = good_calls
        self._error = error

    async def embed_documents(self, texts: Sequence[str]) -> Sequence[Vector]:
        """Vectors, as long as the calls are good ones."""
        self.calls += 1
        if self.calls > self._good_calls:
            raise self._error
        return await super().embed_documents(texts)


async def no_rest(_: float) -> None:
    """Let the others run."""
    await asyncio.sleep(0)


async def filled(tenants: Sequence[str] = ("acme",), *, documents: int = 40) -> MemoryVectorStore:
    """A store whose tenants have documents of two chunks with the old model's vectors."""
    store = MemoryVectorStore()
    for tenant in tenants:
        for number in range(documents):
            await put(store, tenant, [make_revision(f"d{number}", [f"alpha word{number}", f"beta word{number}"])])
    return store


def reembedder(store: MemoryVectorStore, current: Embedder = NEW) -> Reembedder:
    """Moves from the old model, without rests."""
    return Reembedder(store=store, current=current, previous=OLD.model, sleep=no_rest)


async def find(store: MemoryVectorStore, embedder: Embedder, text: str, *, tenant: str = "acme") -> SearchHits:
    """A dense search."""
    vector = await embedder.embed_query(text)
    await asyncio.sleep(0)  # a switch may come between
    query = SearchQuery(
        mode=SearchMode.DENSE, text=text, vector=vector, top_k=40, model=embedder.model.id, want_vectors=True
    )
    return await store.search(tenant, query)


def found(hits: SearchHits) -> set[str]:
    """The texts that were found nearest (a few words share their place in a small vector)."""
    return {one.chunk.text for one in hits.chunks if one.score > hits.chunks[0].score - 1e-6}


async def test_every_index_of_the_previous_model_is_moved() -> None:
    """All tenants come to the new model; the chunks found are the same, and done once nothing is left to do."""
    store = await filled(("acme", "globex"))
    moving = reembedder(store)
    assert await moving.move_due()
    for tenant in ("acme", "globex"):
        state = await store.describe(tenant)
        assert (state.model, state.dimension, state.chunks) == (NEW.model.id, 32, 80)
    hits = await find(store, NEW, "alpha word7")
    assert "alpha word7" in found(hits)
    assert moving.progress("acme") is None
    assert await moving.move_due()


async def test_an_index_of_another_model_is_left_alone() -> None:
    """Only what is of the previous model is moved."""
    store = MemoryVectorStore()
    other = make_revision("d", ["alpha"])
    await store.replace_documents("acme", [other], model="someone-elses@1")
    assert await reembedder(store).move_due()
    assert (await store.describe("acme")).model == "someone-elses@1"


async def test_searches_throughout_see_one_index_each_and_never_fail() -> None:
    """While the index moves, every search is answered by the model of the moment, and the model changes once."""
    store = await filled(documents=200)
    embedders = TenantEmbedders(store=store, current=NEW, previous=OLD)
    moving = asyncio.create_task(reembedder(store).move_due())
    lengths = []
    rounds = 0
    while not moving.done() or rounds < 20:
        rounds += moving.done()
        hits = await embedders.run("acme", lambda embedder: find(store, embedder, "alpha word7"))
        assert "alpha word7" in found(hits)
        assert len({len(vector) for vector in hits.vectors.values()}) == 1
        lengths.append(len(next(iter(hits.vectors.values()))))
    assert await moving
    assert lengths == sorted(lengths, reverse=True)
    assert set(lengths) == {64, 32}


async def test_writes_throughout_are_in_the_new_index() -> None:
    """Documents replaced, added, retracted and erased while the index moves are right in the end."""
    store = await filled(documents=200)
    embedders = TenantEmbedders(store=store, current=NEW, previous=OLD)
    moving = asyncio.create_task(reembedder(store).move_due())

    async def write(embedder: Embedder, document_id: str, text: str, revision: int) -> int:
        (indexed,) = make_revision(document_id, [text], revision=revision).chunks
        vectors = await embedder.embed_documents([text])
        await asyncio.sleep(0)
        made = make_revision(document_id, [text], revision=revision)
        chunks = (IndexedChunk(indexed.chunk, vectors[0], text),)
        revised = type(made)(made.document, chunks)
        return await store.replace_documents("acme", [revised], model=embedder.model.id)

    for number in range(100):
        await embedders.run("acme", lambda e, n=number: write(e, f"d{n}", f"gamma word{n}", 2))
        await embedders.run("acme", lambda e, n=number: write(e, f"new{n}", f"delta word{n}", 1))
    await store.retract_document("acme", "d150", retract_time=make_revision("x", ["x"]).document.index_time)
    assert await moving
    state = await store.describe("acme")
    assert (state.model, state.documents, state.chunks) == (NEW.model.id, 299, 100 + 100 + 99 * 2)
    for text in ("gamma word42", "delta word42", "beta word142"):
        assert text in found(await find(store, NEW, text))
    assert "d150" not in {one.chunk.document_id for one in (await find(store, NEW, "alpha word150")).chunks}


async def test_what_a_killed_process_did_is_not_done_again() -> None:
    """A rebuild that died goes on with what is lacking, searches by the old model going on meanwhile."""
    store = await filled(documents=400)
    first = FailingEmbedder(good_calls=20, error=DiedError())
    with pytest.raises(DiedError):
        await reembedder(store, first).move_due()
    embedders = TenantEmbedders(store=store, current=NEW, previous=OLD)
    assert await embedders.run("acme", lambda embedder: find(store, embedder, "alpha word7"))
    assert (await store.describe("acme")).model == OLD.model.id
    left = len(await store.chunks_to_rebuild("acme", limit=10_000))
    assert left == 800 - WRITE_CHUNKS
    second = FailingEmbedder(good_calls=10_000, error=DiedError())
    assert await reembedder(store, second).move_due()
    assert second.calls == -(-left // 16)


async def test_a_tenant_that_fails_for_now_hinders_no_other() -> None:
    """An embedder that is away leaves the index as it is, tells so, and the next pass ends it."""
    store = await filled(("acme", "globex"))
    away = FailingEmbedder(good_calls=0, error=BackendUnavailable("away"))
    assert not await reembedder(store, away).move_due()
    assert (await store.describe("globex")).model == OLD.model.id
    assert await reembedder(store).move_due()


async def test_progress_is_told_while_it_goes_on() -> None:
    """Done grows to the total, which is what the index holds."""
    store = await filled(documents=400)
    seen = []

    async def look(_: float) -> None:
        progress = moving.progress("acme")
        assert progress is not None
        seen.append((progress.model, progress.chunks_done, progress.chunks_total))

    moving = Reembedder(store=store, current=NEW, previous=OLD.model, sleep=look)
    assert await moving.move_due()
    assert seen[0] == (NEW.model.id, 0, 800)
    assert seen[-1] == (NEW.model.id, 3 * WRITE_CHUNKS, 800)


async def test_without_a_previous_embedder_the_refusal_names_the_setting() -> None:
    """A tenant whose index is of an unknown model is refused with what would help; others are served."""
    store = await filled()
    embedders = TenantEmbedders(store=store, current=NEW)
    with pytest.raises(NotReady, match="BINNACLE_RETRIEVER__PREVIOUS_EMBEDDER_URL") as refused:
        await embedders.run("acme", lambda embedder: find(store, embedder, "alpha"))
    assert refused.value.reason == MISMATCH
    assert OLD.model.id in refused.value.message
    assert not (await embedders.run("globex", lambda embedder: find(store, embedder, "alpha", tenant="globex"))).chunks


async def test_another_refusal_is_passed_on() -> None:
    """Only a mismatch is tried again."""
    embedders = TenantEmbedders(store=await filled(), current=OLD)
    calls = []

    async def refuse(embedder: Embedder) -> None:
        calls.append(embedder)
        raise NotReady("not now", reason="SOMETHING_ELSE")

    with pytest.raises(NotReady, match="not now"):
        await embedders.run("acme", refuse)
    assert len(calls) == 1


async def test_a_new_index_is_begun_with_the_current_model() -> None:
    """A tenant without an index gets the new model at once."""
    embedders = TenantEmbedders(store=MemoryVectorStore(), current=NEW, previous=OLD)
    chosen = await embedders.run("fresh", _same)
    assert chosen is NEW


async def _same(embedder: Embedder) -> Embedder:
    return embedder


def test_a_model_with_too_small_a_window_is_refused() -> None:
    """Chunks that the new model could not read whole are not moved; the message names both windows."""
    old = EmbeddingModel("old", "1", 64, 512)
    with pytest.raises(NotReady, match="128 tokens, and chunks of 254"):
        check_window(EmbeddingModel("new", "1", 64, 128), previous=old, chunk_tokens=254)
    check_window(EmbeddingModel("new", "1", 64, 256), previous=old, chunk_tokens=254)
    check_window(EmbeddingModel("new", "1", 64, 128), previous=EmbeddingModel("old", "1", 64, 128), chunk_tokens=254)


def test_dimensions_of_the_word_hash_are_models_of_their_own() -> None:
    """What the tests above rely on."""
    assert OLD.model.id != NEW.model.id
    assert len(embed_words("a", 32)) == 32
