"""A rebuild of an index that is killed, at each of its steps, goes on and ends with every chunk once."""

import asyncio
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from servicekit.adapters.memory.embedder import MemoryEmbedder
from servicekit.adapters.registry import open_vector_store
from servicekit.errors import NotReady
from servicekit.ports.vector_store import SearchMode, SearchQuery, VectorStore
from servicekit.testing.documents import make_revision, put

OLD, NEW = MemoryEmbedder(), MemoryEmbedder(32)
DOCUMENTS = 350
CHUNKS = 3 * DOCUMENTS
# The step at whose telling the process is killed, and how many of them are let pass.
KILLS = (("writing", 0), ("writing", 2), ("writing", 0), ("finishing", 0))


async def run_until(folder: Path, *, step: str, passing: int, after_s: float) -> bool:
    """Move the index in a process of its own and kill it at a step; whether it was killed before it ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.reembedding_process", str(folder), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(120):
            while line := (await process.stdout.readline()).decode().strip():
                if line == "moved":
                    return False
                passing -= line == step
                if passing < 0:
                    await asyncio.sleep(after_s)  # somewhere within the step
                    return True
        return False
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def search(store: VectorStore, embedder: MemoryEmbedder, mode: SearchMode) -> Sequence[str]:
    """Ids of the chunks found."""
    query = SearchQuery(
        mode=mode, text="alpha", vector=await embedder.embed_query("alpha"), top_k=CHUNKS, model=embedder.model.id
    )
    return [one.chunk.chunk_id for one in (await store.search("acme", query)).chunks]


async def check(folder: Path) -> bool:
    """Whether the index is of the new model; whichever it is, all of it is found, once."""
    async with open_vector_store(f"lancedb://{folder}") as store:
        state = await store.describe("acme")
        assert state.model in {OLD.model.id, NEW.model.id}
        embedder, other = (NEW, OLD) if state.model == NEW.model.id else (OLD, NEW)
        assert (state.documents, state.chunks, state.dimension) == (DOCUMENTS, CHUNKS, embedder.model.dimension)
        for mode in (SearchMode.DENSE, SearchMode.SPARSE):
            found = await search(store, embedder, mode)
            assert len(set(found)) == len(found) == CHUNKS
        with pytest.raises(NotReady):
            await search(store, other, SearchMode.DENSE)
        return state.model == NEW.model.id


@pytest.mark.slow
@pytest.mark.timeout(300)  # a process a kill, each importing for seconds where others work too
async def test_a_killed_rebuild_goes_on_and_loses_nothing(tmp_path: Path) -> None:
    """Killed while it writes and while it switches, the index is whole after each kill, and moved in the end."""
    async with open_vector_store(f"lancedb://{tmp_path}") as store:
        made = [
            make_revision(f"d{n}", [f"alpha beta{n}", f"alpha gamma{n}", f"alpha delta{n}"]) for n in range(DOCUMENTS)
        ]
        await put(store, "acme", made)
    chance = random.Random(5)
    for step, passing in KILLS:
        await run_until(tmp_path, step=step, passing=passing, after_s=chance.uniform(0, 0.1))
        await check(tmp_path)
    assert not await run_until(tmp_path, step="never", passing=0, after_s=0)
    assert await check(tmp_path)
