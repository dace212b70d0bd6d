"""Keeps bulk loads from slowing searches: while someone searches, documents are embedded and written bit by bit.

Wrappers around the embedder and the vector store, put there by `bootstrap.py`; nothing is held back while no one
searches, and nothing is held back for good: each piece of work waits a bounded time at most.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime

from servicekit.domain.chunk import Chunk
from servicekit.ports.embedder import Embedder, EmbeddingModel, Tokenizer, Vector
from servicekit.ports.vector_store import (
    ChunkPlace,
    CorpusState,
    DocumentRevision,
    IndexedChunk,
    SearchHits,
    SearchQuery,
    StoredChunk,
    StoredDocument,
    VectorStore,
)

# So long after a search the next one is expected; long enough for a person's pauses, short against a load.
SEARCHED_WITHIN_S = 2.0
# A piece of work rests for this part of the time that it took, and waits for a moment without searches, within bounds.
REST_RATIO = 0.5
MAX_REST_S = 2.0
# A commit takes both cores' disk and memory for a moment: meanwhile the next ones come together to a larger one.
WRITE_REST_RATIO = 20.0
MAX_QUIET_WAIT_S = 0.02


class SearchGate:
    """Knows when searches run, and lets one piece of other work through at a time meanwhile."""

    def __init__(self) -> None:
        self._running = 0
        self._last_s = float("-inf")
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._turn = asyncio.Lock()

    @contextmanager
    def searching(self) -> Iterator[None]:
        """A search, from its first step to its last."""
        self._running += 1
        self._last_s = time.monotonic()
        self._quiet.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._quiet.set()

    @property
    def is_searched(self) -> bool:
        """Whether a search runs, or one is to be expected."""
        return self._running > 0 or time.monotonic() - self._last_s < SEARCHED_WITHIN_S

    @asynccontextmanager
    async def giving_way(self) -> AsyncIterator[None]:
        """A piece of other work: at once while no one searches, else alone, in a quiet moment, with a rest after."""
        if not self.is_searched:
            yield
            return
        async with self._turn:
            with suppress(TimeoutError):
                async with asyncio.timeout(MAX_QUIET_WAIT_S):
                    await self._quiet.wait()
            began_s = time.monotonic()
            yield
            if self.is_searched:
                await asyncio.sleep(min(REST_RATIO * (time.monotonic() - began_s), MAX_REST_S))


class PacedEmbedder:
    """An embedder whose documents give way to searches, text by text."""

    def __init__(self, embedder: Embedder, gate: SearchGate) -> None:
        self._embedder = embedder
        self._gate = gate

    @property
    def model(self) -> EmbeddingModel:
        """The model behind the vectors."""
        return self._embedder.model

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer whose counts decide where a text is cut."""
        return self._embedder.tokenizer

    async def embed_query(self, text: str) -> Vector:
        """The vector of a query, held back by nothing."""
        with self._gate.searching():
            return await self._embedder.embed_query(text)

    async def embed_documents(self, texts: Sequence[str]) -> Sequence[Vector]:
        """Vectors in the order of `texts`; all in one call until someone searches."""
        if not self._gate.is_searched:
            return await self._embedder.embed_documents(texts)
        vectors: list[Vector] = []
        while len(vectors) < len(texts) and self._gate.is_searched:
            async with self._gate.giving_way():
                vectors += await self._embedder.embed_documents([texts[len(vectors)]])
        if rest := texts[len(vectors) :]:
            vectors += await self._embedder.embed_documents(rest)
        return vectors

    async def ping(self) -> None:
        """Return if the embedder answers now."""
        await self._embedder.ping()


class _PassingStore:
    """A vector store as another one is."""

    def __init__(self, store: VectorStore, gate: SearchGate) -> None:
        self._store = store
        self._gate = gate

    async def search(self, tenant: str, query: SearchQuery) -> SearchHits:
        """As the store."""
        return await self._store.search(tenant, query)

    async def replace_documents(self, tenant: str, revisions: Sequence[DocumentRevision], *, model: str) -> int:
        """As the store."""
        return await self._store.replace_documents(tenant, revisions, model=model)

    async def write_rebuilt(self, tenant: str, chunks: Sequence[IndexedChunk]) -> None:
        """As the store."""
        await self._store.write_rebuilt(tenant, chunks)

    async def get_places(self, tenant: str, places: Sequence[ChunkPlace]) -> Mapping[ChunkPlace, Chunk]:
        """As the store."""
        return await self._store.get_places(tenant, places)

    async def get_chunks(self, tenant: str, content_hashes: Sequence[str]) -> Mapping[str, StoredChunk]:
        """As the store."""
        return await self._store.get_chunks(tenant, content_hashes)

    async def retract_document(self, tenant: str, document_id: str, *, retract_time: datetime) -> int:
        """As the store: whoever takes a text back does not wait."""
        return await self._store.retract_document(tenant, document_id, retract_time=retract_time)

    async def delete_document(self, tenant: str, document_id: str, *, erase_time: datetime) -> int:
        """As the store."""
        return await self._store.delete_document(tenant, document_id, erase_time=erase_time)

    async def get_documents(self, tenant: str, document_ids: Sequence[str]) -> Mapping[str, StoredDocument]:
        """As the store."""
        return await self._store.get_documents(tenant, document_ids)

    async def list_documents(
        self, tenant: str, *, page_size: int, after: str = "", include_retracted: bool = False
    ) -> Sequence[StoredDocument]:
        """As the store."""
        return await self._store.list_documents(
            tenant, page_size=page_size, after=after, include_retracted=include_retracted
        )

    async def describe(self, tenant: str) -> CorpusState:
        """As the store."""
        return await self._store.describe(tenant)

    async def list_tenants(self) -> Sequence[str]:
        """As the store."""
        return await self._store.list_tenants()

    async def begin_rebuild(self, tenant: str, *, model: str, dimension: int) -> None:
        """As the store."""
        await self._store.begin_rebuild(tenant, model=model, dimension=dimension)

    async def chunks_to_rebuild(self, tenant: str, *, limit: int) -> Sequence[IndexedChunk]:
        """As the store."""
        return await self._store.chunks_to_rebuild(tenant, limit=limit)

    async def finish_rebuild(self, tenant: str) -> bool:
        """As the store."""
        return await self._store.finish_rebuild(tenant)

    async def ping(self) -> None:
        """As the store."""
        await self._store.ping()


class WatchedVectorStore(_PassingStore):
    """The store as searches see it: what they ask makes other work give way."""

    async def search(self, tenant: str, query: SearchQuery) -> SearchHits:
        """Search, held back by nothing."""
        with self._gate.searching():
            return await self._store.search(tenant, query)

    async def get_places(self, tenant: str, places: Sequence[ChunkPlace]) -> Mapping[ChunkPlace, Chunk]:
        """Read, held back by nothing."""
        with self._gate.searching():
            return await self._store.get_places(tenant, places)


class PacedVectorStore(_PassingStore):
    """The store as everyone else sees it: writes give way; the searches of an indexer are no one's."""

    def __init__(self, store: VectorStore, gate: SearchGate) -> None:
        super().__init__(store, gate)
        self._turn = asyncio.Lock()
        self._next_write_s = float("-inf")

    async def replace_documents(self, tenant: str, revisions: Sequence[DocumentRevision], *, model: str) -> int:
        """Make these the current revisions."""
        async with self._writing():
            return await self._store.replace_documents(tenant, revisions, model=model)

    async def write_rebuilt(self, tenant: str, chunks: Sequence[IndexedChunk]) -> None:
        """Put chunks into the index beside."""
        async with self._writing():
            await self._store.write_rebuilt(tenant, chunks)

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[None]:
        """At once while no one searches, else seldom: not before the rest that the last write has earned."""
        if not self._gate.is_searched:
            yield
            return
        async with self._turn:
            await asyncio.sleep(max(0.0, self._next_write_s - time.monotonic()))
            async with self._gate.giving_way():
                began_s = time.monotonic()
                yield
                now_s = time.monotonic()
                self._next_write_s = now_s + min(WRITE_REST_RATIO * (now_s - began_s), MAX_REST_S)
