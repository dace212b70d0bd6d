"""The vector store on disk keeps the contract of the vector-store port, and what a disk adds to it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from servicekit.adapters.lancedb import maintenance
from servicekit.adapters.lancedb.tenant import TenantTables
from servicekit.adapters.lancedb.vector_store import LanceVectorStore, open_vector_store
from servicekit.adapters.memory.embedder import embed_words
from servicekit.errors import InvalidRequest, NotReady
from servicekit.ports.vector_store import SearchMode, SearchQuery
from servicekit.testing.conformance.vector_store import VectorStoreConformance
from servicekit.testing.documents import MODEL, NOON, make_revision, put


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LanceVectorStore]:
    """An empty store in a fresh folder."""
    async with open_vector_store(f"lancedb://{tmp_path}/index") as opened:
        yield opened


class TestLanceVectorStore(VectorStoreConformance):
    """The suite against `lancedb://`."""


def _search(text: str, mode: SearchMode = SearchMode.HYBRID, top_k: int = 5) -> SearchQuery:
    return SearchQuery(mode, text, embed_words(text), top_k, MODEL)


async def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    """Documents, tombstones, versions, fields and archives outlive the process."""
    url = f"lancedb://{tmp_path}"
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
        assert await put(store, "acme", [make_revision("c", ["west"])]) == before.version + 1


async def test_the_model_outlives_the_process(tmp_path: Path) -> None:
    """An index made by one embedder is neither written nor searched with vectors of another, whoever opens it."""
    url = f"lancedb://{tmp_path}"
    async with open_vector_store(url) as store:
        await put(store, "acme", [make_revision("a", ["north star"])])
    async with open_vector_store(url) as store:
        assert (await store.describe("acme")).model == MODEL
        with pytest.raises(NotReady, match="other@2"):
            await store.search("acme", replace(_search("north"), model="other@2"))
        with pytest.raises(NotReady, match="other@2"):
            await store.replace_documents("acme", [make_revision("b", ["x"])], model="other@2")


@pytest.mark.parametrize("url", ["lancedb://", "lancedb:///", "lancedb://host/path", "lancedb:///x?mode=fast"])
async def test_a_url_that_names_no_folder_is_refused(url: str) -> None:
    """Host, query and root are mistakes, said before anything is written."""
    with pytest.raises(InvalidRequest, match="lancedb:///absolute/folder"):
        async with open_vector_store(url):
            pass


async def test_optimizing_changes_no_answer(store: LanceVectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexing what was appended in another process, with a vector index too, leaves every ranking as it was."""
    monkeypatch.setattr(maintenance, "WORKER_MIN_ROWS", 300)
    monkeypatch.setattr(maintenance, "VECTOR_INDEX_MIN_ROWS", 300)
    texts = [f"station {number} reports wind {number % 7} from the {number % 5} side" for number in range(400)]
    await put(store, "acme", [make_revision("log", texts)])
    await put(store, "acme", [make_revision("star", ["the polar star stands still"])])
    queries = [_search("polar star"), _search("polar star", SearchMode.SPARSE), _search("polar star", SearchMode.DENSE)]
    before = [(await store.search("acme", query)).chunks[0].chunk for query in queries]
    tables = store._tenants["acme"]
    await store._maintenance.optimize(tables)
    assert tables.snapshot.has_vector_index
    assert [(await store.search("acme", query)).chunks[0].chunk for query in queries] == before
    await put(store, "acme", [make_revision("late", ["a comet passes late"])])
    assert (await store.search("acme", _search("comet late"))).chunks[0].chunk.document_id == "late"
    await store.delete_document("acme", "star", erase_time=NOON)
    assert (await store.search("acme", _search("polar star"))).chunks[0].chunk.document_id == "log"


async def test_writes_bring_maintenance_about(store: LanceVectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """After enough rows the background task indexes them without being asked."""
    monkeypatch.setattr(maintenance, "OPTIMIZE_EVERY_ROWS_UNSEARCHED", 100)
    monkeypatch.setattr(maintenance, "IDLE_S", 60.0)
    finished = asyncio.Event()
    original = maintenance.Maintenance.optimize

    async def observed(self: maintenance.Maintenance, tables: TenantTables, *, exclusive: bool = False) -> None:
        await original(self, tables, exclusive=exclusive)
        finished.set()

    monkeypatch.setattr(maintenance.Maintenance, "optimize", observed)
    await put(store, "acme", [make_revision("few", [f"text {n}" for n in range(20)])])
    assert not finished.is_set()
    await put(store, "acme", [make_revision("many", [f"text {n}" for n in range(90)])])
    await finished.wait()
    indices = await store._tenants["acme"].chunks.list_indices()
    stats = [await store._tenants["acme"].chunks.index_stats(index.name) for index in indices]
    assert [one.num_unindexed_rows for one in stats if one] == [0, 0, 0]


_WRITER = """
import asyncio, sys
from servicekit.adapters.lancedb.vector_store import open_vector_store
from servicekit.testing.documents import MODEL, NOON, make_revision, put

async def write(url: str) -> None:
    async with open_vector_store(url) as store:
        for number in range(1, 10_000):
            texts = [f"swap part {part} edition {number}" for part in range(5)]
            await put(store, "acme", [make_revision("swap", texts, revision=number)])
            print(number, flush=True)

asyncio.run(write(sys.argv[1]))
"""


@pytest.mark.parametrize("kill_after", [2, 12])
async def test_a_killed_writer_leaves_whole_revisions(tmp_path: Path, kill_after: int) -> None:
    """After kill -9 amid writes one whole revision is there, none acknowledged is lost, and writing goes on."""
    url = f"lancedb://{tmp_path}"
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
        assert (await store.describe("acme")).version >= acknowledged
        await put(store, "acme", [make_revision("swap", ["the end"], revision=10_000)])
        assert [hit.chunk.text for hit in (await store.search("acme", _search("end"))).chunks] == ["the end"]


_REBUILDER = """
import asyncio, sys
from dataclasses import replace
from servicekit.adapters.lancedb.vector_store import open_vector_store
from servicekit.testing.documents import NOON, make_revision

async def rebuild(url: str) -> None:
    async with open_vector_store(url) as store:
        texts = [f"star number {part}" for part in range(5)]
        await store.replace_documents("acme", [make_revision("stars", texts)], model="model-0")
        for number in range(1, 10_000):
            await store.begin_rebuild("acme", model=f"model-{number}", dimension=64)
            while lacking := await store.chunks_to_rebuild("acme", limit=3):
                await store.write_rebuilt("acme", [replace(one, vector=[float(number)] * 64) for one in lacking])
            assert await store.finish_rebuild("acme")
            late = make_revision("late", [f"retracted {number}"], revision=number)
            await store.replace_documents("acme", [late], model=f"model-{number}")
            await store.retract_document("acme", "late", retract_time=NOON)
            print(number, flush=True)

asyncio.run(rebuild(sys.argv[1]))
"""


@pytest.mark.parametrize("kill_after", [1, 4])
async def test_a_killed_rebuild_leaves_one_whole_index(tmp_path: Path, kill_after: int) -> None:
    """After kill -9 amid rebuilds and retractions one model's index is whole, and records and searches agree."""
    url = f"lancedb://{tmp_path}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _REBUILDER, url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    acknowledged = 0
    while acknowledged < kill_after:
        acknowledged = int(await process.stdout.readline())
    await asyncio.sleep(0.05 * kill_after)  # somewhere in the next round
    process.kill()
    acknowledged = max([acknowledged, *map(int, (await process.stdout.read()).split())])
    await process.wait()
    async with open_vector_store(url) as store:
        state = await store.describe("acme")
        assert int(state.model.removeprefix("model-")) >= acknowledged
        hits = await store.search("acme", SearchQuery(SearchMode.DENSE, "", [1.0] * 64, 50, state.model))
        found = [hit.chunk.document_id for hit in hits.chunks]
        assert found.count("stars") == 5
        late = (await store.get_documents("acme", ["late"]))["late"]
        shown = [hit.chunk.revision for hit in hits.chunks if hit.chunk.document_id == "late"]
        # Only a newer revision, which was about to be recorded, may be found of what is retracted.
        assert late.retract_time is None or all(revision > late.revision for revision in shown)
        await store.begin_rebuild("acme", model="last", dimension=64)
        while lacking := await store.chunks_to_rebuild("acme", limit=3):
            await store.write_rebuilt("acme", [replace(one, vector=[1.0] * 64) for one in lacking])
        assert await store.finish_rebuild("acme")
        assert (await store.describe("acme")).model == "last"
