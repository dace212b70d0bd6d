"""Bulk loads give way to searches, and only then."""

import asyncio
from collections.abc import Sequence

import pytest

from servicekit.adapters.memory.embedder import MemoryEmbedder
from servicekit.adapters.memory.vector_store import MemoryVectorStore
from servicekit.ports.embedder import Vector
from servicekit.testing.documents import MODEL, make_revision
from services.retriever.index import pacing
from services.retriever.index.pacing import PacedEmbedder, PacedVectorStore, SearchGate


class _Recording(MemoryEmbedder):
    """Remembers how many texts each call had."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    async def embed_documents(self, texts: Sequence[str]) -> Sequence[Vector]:
        """As the embedder in memory."""
        self.calls.append(len(texts))
        return await super().embed_documents(texts)


async def test_a_load_is_left_alone_while_no_one_searches() -> None:
    """All texts go to the embedder in one call."""
    inner = _Recording()
    embedder = PacedEmbedder(inner, SearchGate())
    assert len(await embedder.embed_documents(["a", "b", "c"])) == 3
    assert inner.calls == [3]


async def test_a_load_goes_text_by_text_while_someone_searches() -> None:
    """The vectors are the same, in the same order."""
    inner, gate = _Recording(), SearchGate()
    embedder = PacedEmbedder(inner, gate)
    with gate.searching():
        vectors = await embedder.embed_documents(["north", "south", "west"])
    assert inner.calls == [1, 1, 1]
    assert vectors == await inner.embed_documents(["north", "south", "west"])


async def test_a_load_speeds_up_once_searches_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left goes to the embedder at once."""
    monkeypatch.setattr(pacing, "SEARCHED_WITHIN_S", 0.0)
    inner, gate = _Recording(), SearchGate()
    search = gate.searching()
    search.__enter__()

    class _EndsSearch(_Recording):
        async def embed_documents(self, texts: Sequence[str]) -> Sequence[Vector]:
            if not self.calls:
                search.__exit__(None, None, None)
            return await super().embed_documents(texts)

    inner = _EndsSearch()
    assert len(await PacedEmbedder(inner, gate).embed_documents(["a", "b", "c"])) == 3
    assert inner.calls == [1, 2]


async def test_a_write_waits_for_a_quiet_moment_but_not_for_ever() -> None:
    """It begins when the search ends, and without that after a bounded time."""
    gate = SearchGate()
    store = PacedVectorStore(MemoryVectorStore(), gate)
    with gate.searching():
        writing = asyncio.create_task(store.replace_documents("acme", [make_revision("a", ["x"])], model=MODEL))
        await asyncio.sleep(0)
        assert (await store.describe("acme")).version == 0
    assert await writing == 1
    with gate.searching():
        assert await store.replace_documents("acme", [make_revision("b", ["y"])], model=MODEL) == 2


async def test_one_piece_of_work_at_a_time_while_someone_searches() -> None:
    """Many loads together take no more than one of them."""
    gate = SearchGate()
    inside = 0

    async def work() -> None:
        nonlocal inside
        async with gate.giving_way():
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            inside -= 1

    with gate.searching():
        await asyncio.gather(*(work() for _ in range(5)))


async def test_writes_come_seldom_while_someone_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a write the next one waits for the rest that it has earned; with no search none waits."""
    slept: list[float] = []

    async def note(delay_s: float) -> None:
        slept.append(delay_s)

    gate = SearchGate()
    store = PacedVectorStore(MemoryVectorStore(), gate)
    monkeypatch.setattr(pacing, "MAX_QUIET_WAIT_S", 0.001)
    monkeypatch.setattr(pacing, "WRITE_REST_RATIO", 1e9)
    monkeypatch.setattr(asyncio, "sleep", note)
    await store.replace_documents("acme", [make_revision("a", ["x"])], model=MODEL)
    assert slept == []
    with gate.searching():
        await store.replace_documents("acme", [make_revision("b", ["x"])], model=MODEL)
        slept.clear()
        await store.replace_documents("acme", [make_revision("c", ["x"])], model=MODEL)
    assert slept[0] == pytest.approx(pacing.MAX_REST_S, abs=0.5)
