"""The vector store on a real Weaviate keeps the contract of the vector-store port."""

import asyncio
import itertools
import os
import sys
from collections.abc import AsyncIterator

import pytest

from servicekit.adapters.memory.embedder import embed_words
from servicekit.adapters.weaviate import corpus
from servicekit.adapters.weaviate.vector_store import WeaviateVectorStore, open_vector_store
from servicekit.errors import BackendUnavailable, InvalidRequest
from servicekit.ports.vector_store import SearchMode, SearchQuery
from servicekit.testing.conformance.vector_store import VectorStoreConformance
from servicekit.testing.documents import MODEL, NOON, content_hash, make_revision, put

pytestmark = pytest.mark.servers
_prefixes = (f"T{os.getpid()}N{number}" for number in itertools.count())


@pytest.fixture
async def url(real_weaviate: str) -> AsyncIterator[str]:
    """The address of a store whose collections are this test's own, and go with it."""
    prefix = next(_prefixes)
    address = f"{real_weaviate}&collection_prefix={prefix}"
    yield address
    async with open_vector_store(address) as opened:
        client = opened._server.client
        for name in await client.collections.list_all():
            if name.startswith(prefix):
                await client.collections.delete(name)


@pytest.fixture
async def store(url: str) -> AsyncIterator[WeaviateVectorStore]:
    """An empty store."""
    async with open_vector_store(url) as opened:
        yield opened


class TestWeaviateVectorStore(VectorStoreConformance):
    """The suite against `weaviate://`."""


def _search(text: str, mode: SearchMode = SearchMode.HYBRID, top_k: int = 5) -> SearchQuery:
    return SearchQuery(mode, text, embed_words(text), top_k, MODEL)


async def test_everything_is_there_after_reopening(url: str) -> None:
    """Documents, tombstones, versions, fields and archives outlive the process, and versions go on growing."""
    async with open_vector_store(url) as store:
        await put(store, "acme", [make_revision("a", ["north star"], metadata={"k": 1})])
        await put(store, "acme", [make_revision("b", ["south wind"])])
        await store.delete_document("acme", "b", erase_time=NOON)
        before = await store.describe("acme")
    async with open_vector_store(url) as store:
        assert await store.describe("acme") == before
        hits = await store.search("acme", _search("north star"))
        assert [(hit.chunk.document_id, hits.corpus_version) for hit in hits.chunks] == [("a", 3)]
        assert (await store.get_documents("acme", ["b"]))["b"].delete_time == NOON
        assert await put(store, "acme", [make_revision("c", ["west"])]) > before.version


async def test_another_process_sees_a_commit(url: str) -> None:
    """A reader that never writes follows the writer within a second."""
    async with open_vector_store(url) as writer, open_vector_store(url) as reader:
        for number in (1, 2, 3):
            version = await put(writer, "acme", [make_revision("a", [f"edition {number}"], revision=number)])
            async with asyncio.timeout(1.5):
                while (await reader.search("acme", _search("edition"))).corpus_version < version:
                    await asyncio.sleep(0.05)
            hits = await reader.search("acme", _search("edition"))
            assert [hit.chunk.revision for hit in hits.chunks] == [number]


async def test_dead_chunks_are_taken_away(store: WeaviateVectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the grace only what can be found is left in the index; hashes of older revisions still answer."""
    monkeypatch.setattr(corpus, "GRACE_S", 0.0)
    for number in range(1, 6):
        await put(store, "acme", [make_revision("a", [f"edition {number}", "same"], revision=number)])
    mine = store._corpora["acme"]
    assert await _count(mine) > 2
    await mine.take_dead()
    assert await _count(mine) == 2
    assert not mine.snapshot.dead
    assert await store.get_chunks("acme", [content_hash("edition 1")])
    assert len((await store.search("acme", _search("edition same"))).chunks) == 2


async def _count(mine: corpus.Corpus) -> int:
    return int((await mine.chunks.aggregate.over_all(total_count=True)).total_count)


async def test_a_search_short_of_chunks_asks_again(store: WeaviateVectorStore) -> None:
    """Dead chunks that crowd out the current ones cost a second question, never an answer."""
    for number in range(1, 5):
        texts = [f"compass needle {part} edition {number}" for part in range(40)]
        await put(store, "acme", [make_revision("many", texts, revision=number)])
    await put(store, "acme", [make_revision("many", ["nothing of the kind"], revision=5)])
    await put(store, "acme", [make_revision("few", ["one compass"])])
    for mode in SearchMode:
        hits = await store.search("acme", _search("compass needle edition", mode, top_k=1))
        assert [hit.chunk.document_id for hit in hits.chunks] == ["few"], mode


async def test_a_refused_write_costs_no_version(store: WeaviateVectorStore) -> None:
    """What is refused before anything is put in leaves nothing to clear away."""
    await put(store, "acme", [make_revision("a", ["edition one"], metadata={"k": 1})])
    for _ in range(3):
        with pytest.raises(InvalidRequest):
            await put(store, "acme", [make_revision("b", ["x"], metadata={"k": "text"})])
    assert await put(store, "acme", [make_revision("b", ["edition two"])]) == 2
    assert store._corpora["acme"].snapshot.aborted == ()


async def test_a_failed_write_leaves_nothing_behind(
    store: WeaviateVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was put in before the failure is never found, and its version never comes to be."""
    await put(store, "acme", [make_revision("a", ["edition one"])])
    mine = await store._reader("acme")

    async def fail(*_: object) -> None:
        raise BackendUnavailable("away", reason="VECTOR_STORE_FAILED")

    with monkeypatch.context() as patched:
        patched.setattr(mine, "commit_state", fail)
        with pytest.raises(BackendUnavailable):
            await put(store, "acme", [make_revision("a", ["edition two"], revision=2)])
    hits = await store.search("acme", _search("edition"))
    assert ([hit.chunk.text for hit in hits.chunks], hits.corpus_version) == (["edition one"], 1)
    assert await put(store, "acme", [make_revision("b", ["edition three"])]) > 2
    hits = await store.search("acme", _search("edition"))
    assert {hit.chunk.text for hit in hits.chunks} == {"edition one", "edition three"}
    assert await _count(mine) == 2


async def test_a_first_write_that_fails(store: WeaviateVectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant whose first write failed is empty to every read, and its next write is whole."""
    mine = await store._reader("acme")

    async def fail(*_: object) -> None:
        raise BackendUnavailable("away", reason="VECTOR_STORE_FAILED")

    with monkeypatch.context() as patched:
        patched.setattr(mine, "commit_state", fail)
        with pytest.raises(BackendUnavailable):
            await put(store, "acme", [make_revision("a", ["edition one"]), make_revision("b", ["edition two"])])
    assert (await store.search("acme", _search("edition"))).chunks == ()
    assert await store.get_documents("acme", ["a"]) == {}
    await put(store, "acme", [make_revision("a", ["edition one"])])
    hits = await store.search("acme", _search("edition"))
    assert [hit.chunk.document_id for hit in hits.chunks] == ["a"]
    assert await _count(mine) == 1


_WRITER = """
import asyncio, sys
from servicekit.adapters.weaviate.vector_store import open_vector_store
from servicekit.testing.documents import make_revision, put

async def write(url: str) -> None:
    async with open_vector_store(url) as store:
        for number in range(1, 10_000):
            texts = [f"swap part {part} edition {number}" for part in range(5)]
            await put(store, "acme", [make_revision("swap", texts, revision=number)])
            print(number, flush=True)

asyncio.run(write(sys.argv[1]))
"""


@pytest.mark.parametrize("kill_after", [2, 12])
async def test_a_killed_writer_leaves_whole_revisions(url: str, kill_after: int) -> None:
    """After kill -9 amid writes one whole revision is there, none acknowledged is lost, and writing goes on."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _WRITER, url, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    acknowledged = 0
    while acknowledged < kill_after:
        acknowledged = int(await process.stdout.readline())
    process.kill()
    acknowledged = max([acknowledged, *map(int, (await process.stdout.read()).split())])
    await process.wait()
    async with open_vector_store(url) as store:
        hits = await store.search("acme", _search("swap part edition", top_k=50))
        revisions = [hit.chunk.revision for hit in hits.chunks]
        assert len(revisions) == 5
        assert len(set(revisions)) == 1
        assert revisions[0] >= acknowledged
        assert (await store.get_documents("acme", ["swap"]))["swap"].revision == revisions[0]
        await put(store, "acme", [make_revision("swap", ["the end"], revision=10_000)])
        for mode in SearchMode:
            hits = await store.search("acme", _search("end swap part edition", mode, top_k=50))
            assert [hit.chunk.text for hit in hits.chunks] == ["the end"]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("weaviate://", "weaviate://host:port"),
        ("weaviate://host/path", "weaviate://host:port"),
        ("weaviate://key@host:8080", "weaviate://host:port"),
        ("weaviate://host:8080?mode=fast", "unknown options mode"),
        ("weaviate://host:8080?grpc_port=x", "number"),
        ("weaviate://host:8080?collection_prefix=small", "collection_prefix"),
        ("weaviate://host:8080?api_key_file=/nowhere/at/all", "api_key_file"),
    ],
)
async def test_a_url_with_a_mistake_is_refused(url: str, told: str) -> None:
    """It is said what is wrong, before anything is asked of a server."""
    with pytest.raises(InvalidRequest, match=told):
        async with open_vector_store(url):
            pass
