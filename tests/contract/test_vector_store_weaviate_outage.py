"""The vector store on a Weaviate that goes away and comes back: bounded errors, nothing lost."""

import asyncio
import signal
import time
from pathlib import Path

import pytest

from servicekit.adapters.memory.embedder import embed_words
from servicekit.adapters.weaviate.vector_store import open_vector_store
from servicekit.errors import BackendUnavailable
from servicekit.ports.vector_store import SearchMode, SearchQuery, VectorStore
from servicekit.testing.documents import MODEL, make_revision, put
from services.local import native_weaviate
from services.local.layout import choose_ports
from services.local.native_server import start_server, stop_server
from services.local.native_weaviate import NativeWeaviate

pytestmark = pytest.mark.servers
_READ_S = 2.0


@pytest.fixture
def weaviate(tmp_path: Path) -> NativeWeaviate:
    """A server that is this test's own to kill; whoever starts it again stops it."""
    if reason := native_weaviate.obstacle():
        pytest.skip(reason)
    return native_weaviate.on_ports(tmp_path, choose_ports({}, free=True).by_name)


def _query(mode: SearchMode = SearchMode.HYBRID) -> SearchQuery:
    return SearchQuery(mode, "compass", embed_words("compass"), 10, MODEL)


async def _fails_in_time(store: VectorStore) -> None:
    for mode in SearchMode:
        started_s = time.monotonic()
        with pytest.raises(BackendUnavailable):
            await store.search("acme", _query(mode))
        assert time.monotonic() - started_s < _READ_S + 1.0


async def _answers_within(store: VectorStore, *, bound_s: float) -> list[str]:
    async with asyncio.timeout(bound_s):
        while True:
            try:
                return [hit.chunk.document_id for hit in (await store.search("acme", _query())).chunks]
            except BackendUnavailable:
                await asyncio.sleep(0.1)


async def test_a_server_that_stops_and_goes_on(weaviate: NativeWeaviate) -> None:
    """While it hangs, every search ends in time with an error; then it answers as before, a write cut off included."""
    process = await asyncio.to_thread(start_server, weaviate)
    try:
        async with open_vector_store(f"{weaviate.url}&read_s={_READ_S}&write_s=3") as store:
            await put(store, "acme", [make_revision("a", ["a compass"])])
            process.send_signal(signal.SIGSTOP)
            try:
                await _fails_in_time(store)
                with pytest.raises(BackendUnavailable):
                    await store.ping()
                with pytest.raises(BackendUnavailable):
                    await put(store, "acme", [make_revision("a", ["another compass"], revision=2)])
            finally:
                process.send_signal(signal.SIGCONT)
            assert await _answers_within(store, bound_s=20) == ["a"]
            hits = await store.search("acme", _query())
            assert [hit.chunk.revision for hit in hits.chunks] == [1]
            await put(store, "acme", [make_revision("a", ["another compass"], revision=2)])
            hits = await store.search("acme", _query())
            assert [hit.chunk.revision for hit in hits.chunks] == [2]
            await store.ping()
    finally:
        await asyncio.to_thread(stop_server, process)


async def test_a_killed_server_comes_back_with_all_it_had(weaviate: NativeWeaviate) -> None:
    """After kill -9 searches fail in time, and after the restart the same store finds every acknowledged document."""
    process = await asyncio.to_thread(start_server, weaviate)
    try:
        async with open_vector_store(f"{weaviate.url}&read_s={_READ_S}") as store:
            for number in range(5):
                await put(store, "acme", [make_revision(f"d{number}", [f"compass {number}"])])
            await store.retract_document("acme", "d0", retract_time=make_revision("x", []).document.index_time)
            process.kill()
            process.wait()
            await _fails_in_time(store)
            process = await asyncio.to_thread(start_server, weaviate)
            assert sorted(await _answers_within(store, bound_s=20)) == ["d1", "d2", "d3", "d4"]
            assert (await store.describe("acme")).version == 6
            await put(store, "acme", [make_revision("late", ["compass"])])
            assert len((await store.search("acme", _query())).chunks) == 5
        async with open_vector_store(weaviate.url) as store:
            assert len((await store.search("acme", _query())).chunks) == 5
            assert len(await store.list_documents("acme", page_size=10, include_retracted=True)) == 6
    finally:
        await asyncio.to_thread(stop_server, process)
