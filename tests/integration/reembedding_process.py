"""A process that moves a LanceDB folder's indexes and tells each step, to be killed: `python -m … FOLDER`."""

import asyncio
import sys
from collections.abc import Sequence

from servicekit.adapters.memory.embedder import MemoryEmbedder
from servicekit.adapters.registry import open_vector_store
from servicekit.ports.vector_store import IndexedChunk, VectorStore
from services.retriever.index.reembedding import Reembedder


def tell(step: str) -> None:
    """One line, at once."""
    sys.stdout.write(f"{step}\n")
    sys.stdout.flush()


async def move(folder: str) -> None:
    """Move everything of the 64-value model to the one of 32 values."""
    async with open_vector_store(f"lancedb://{folder}") as store:
        await _Telling(store, MemoryEmbedder(32)).move_due()
    tell("moved")


class _Telling(Reembedder):
    def __init__(self, store: VectorStore, current: MemoryEmbedder) -> None:
        write, finish = store.write_rebuilt, store.finish_rebuild

        async def told_write(tenant: str, chunks: Sequence[IndexedChunk]) -> None:
            tell("writing")
            await write(tenant, chunks)

        async def told_finish(tenant: str) -> bool:
            tell("finishing")
            return await finish(tenant)

        store.write_rebuilt, store.finish_rebuild = told_write, told_finish  # type: ignore[method-assign]  # to tell
        super().__init__(store=store, current=current, previous=MemoryEmbedder.model, share=1.0)


if __name__ == "__main__":
    asyncio.run(move(sys.argv[1]))
