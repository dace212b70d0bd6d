"""The pipeline that turns documents into indexed chunks; one document's changes come one after another.

Called by `server.py` for documents handed in directly, and by `events.py` for submitted ones. The steps are the
modules that `Indexer.__init__` lists, in that order; each leaves behind what it refused and works on the rest.

Idempotent: a document whose content, metadata, cutting rules and embedding model are unchanged is left alone. A crash
at any step loses nothing and leaves nothing half done: only the last step writes, and it writes all at one instant.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary

import structlog

from servicekit.errors import InvalidRequest
from servicekit.ports.clock import Clock
from servicekit.ports.embedder import Embedder
from servicekit.ports.vector_store import DocumentRevision, IndexedChunk, StoredDocument, VectorStore
from services.retriever.index.embedders import TenantEmbedders
from services.retriever.ingestion.document import SubmittedDocument
from services.retriever.ingestion.progress import NoProgress, Progress, Stage
from services.retriever.ingestion.results import IndexResult, Outcome, stored_as
from services.retriever.ingestion.submission import EventPlace
from services.retriever.ingestion.work import Draft, Item, Work
from services.retriever.ingestion.writing import GroupWriter

# Texts, chunks and vectors of a document this large take hundreds of megabytes: one at a time.
LARGE_BYTES = 2 * 1024 * 1024
# Each of them may turn out to be large, and is held while it waits its turn.
FETCHED_AT_ONCE = 8

log = structlog.get_logger()

Step = Callable[[Work], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class IndexReport:
    """Results in the order of the documents, the corpus version after them, the time it took, the index's model."""

    results: tuple[IndexResult, ...]
    corpus_version: int
    elapsed_s: float
    embedding_model: str = ""


class Indexer:
    """Indexes, retracts and deletes; work on one document never overlaps, whoever asks for it."""

    def __init__(
        self, *, store: VectorStore, embedders: TenantEmbedders, clock: Clock, fetch: Step, steps: Sequence[Step]
    ) -> None:
        self._store = store
        self._embedders = embedders
        self._clock = clock
        self._fetch = fetch
        self._steps = (*steps, self._write)
        self._writer = GroupWriter(store, coming=lambda tenant: self._in_hand[tenant])
        self._in_hand: Counter[str] = Counter()
        self._large = asyncio.Lock()
        self._fetched = asyncio.Semaphore(FETCHED_AT_ONCE)
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def index(
        self,
        tenant: str,
        documents: Sequence[SubmittedDocument],
        *,
        path: str,
        place: EventPlace | None = None,
        progress: Progress | None = None,
    ) -> IndexReport:
        """Index documents with different ids; a refused one does not hinder the others.

        Args:
            tenant: whose documents they are.
            documents: what was handed in.
            path: the request's field that holds them, for messages; `{}` stands for the place.
            place: where the event stood that submitted them; an event that is not newer changes nothing.
            progress: who is told how far it is.

        Raises:
            InvalidRequest: an id stands twice, or metadata clashes with what another call wrote meanwhile.
            BackendUnavailable: the store, the embedder or the guardrail is away; repeating the call is safe.
        """
        started_s = self._clock.monotonic_s()
        _check_distinct(documents)

        async def attempt(embedder: Embedder) -> Work:
            items = tuple(Item(one, path.format(number)) for number, one in enumerate(documents))
            work = Work(tenant, items, self._clock.now(), embedder, place=place, progress=progress or NoProgress())
            async with self._few_fetched(work):
                await self._fetch(work)
                async with self._alone_if_large(work):
                    await self._run(work)
            return work

        self._in_hand[tenant] += 1
        try:
            async with self._locked(tenant, [document.document_id for document in documents]):
                work = await self._embedders.write(tenant, attempt)
        finally:
            self._in_hand[tenant] -= 1
        results = tuple(item.result for item in work.items if item.result is not None)
        elapsed_s = self._clock.monotonic_s() - started_s
        return IndexReport(results, work.version, elapsed_s, work.embedder.model.id)

    async def retract(self, tenant: str, document_id: str) -> tuple[StoredDocument, int]:
        """Hide a document from searches; returns it as it stands now and the corpus version after it.

        Raises:
            NotFound: there is none, or it is deleted.
            NotReady: it is retracted already.
        """
        async with self._locked(tenant, [document_id]):
            version = await self._store.retract_document(tenant, document_id, retract_time=self._clock.now())
            return (await self._store.get_documents(tenant, [document_id]))[document_id], version

    async def delete(self, tenant: str, document_id: str) -> tuple[StoredDocument, int]:
        """Erase a document with its revisions; returns its tombstone and the corpus version after it.

        Raises:
            NotFound: there is none, or it is deleted already.
        """
        async with self._locked(tenant, [document_id]):
            version = await self._store.delete_document(tenant, document_id, erase_time=self._clock.now())
            return (await self._store.get_documents(tenant, [document_id]))[document_id], version

    async def _run(self, work: Work) -> None:
        """All steps, until no document is left to work on."""
        await work.progress.enter(Stage.PREPARING)
        known = await self._store.get_documents(work.tenant, [item.document.document_id for item in work.items])
        for item in work.items:
            item.stored = known.get(item.document.document_id)
        state = await self._store.describe(work.tenant)
        work.fields, work.version = state.fields, state.version
        for step in self._steps:
            await step(work)
            if not any(work.open()):
                break

    async def _write(self, work: Work) -> None:
        """Swap all drafts in at one instant."""
        await work.progress.enter(Stage.WRITING)
        drafts = list(work.drafts())
        work.version = await self._writer.write(
            work.tenant, [_revision(item, draft) for item, draft in drafts], model=work.embedder.model.id
        )
        for item, draft in drafts:
            live = item.stored is not None and item.stored.delete_time is None
            item.result = stored_as(
                draft.document,
                Outcome.UPDATED if live else Outcome.CREATED,
                flags=tuple(item.flags),
                duplicate_of=item.duplicate_of,
                language=item.language,
            )

    @asynccontextmanager
    async def _few_fetched(self, work: Work) -> AsyncIterator[None]:
        if not any(item.document.fetch_uri for item in work.items):
            yield
            return
        async with self._fetched:
            yield

    @asynccontextmanager
    async def _alone_if_large(self, work: Work) -> AsyncIterator[None]:
        if sum(len(item.document.content) for item in work.items) < LARGE_BYTES:
            yield
            return
        async with self._large:
            yield

    @asynccontextmanager
    async def _locked(self, tenant: str, document_ids: Sequence[str]) -> AsyncIterator[None]:
        """Hold the documents' locks, taken in one order so that two calls never wait for each other."""
        async with AsyncExitStack() as held:
            for document_id in sorted(document_ids):
                lock = self._locks.setdefault((tenant, document_id), asyncio.Lock())
                await held.enter_async_context(lock)
            yield


def _revision(item: Item, draft: Draft) -> DocumentRevision:
    return DocumentRevision(
        draft.document,
        tuple(
            IndexedChunk(chunk, vector, text)
            for chunk, vector, text in zip(draft.chunks, item.vectors, draft.search_texts, strict=True)
        ),
    )


def _check_distinct(documents: Sequence[SubmittedDocument]) -> None:
    seen: set[str] = set()
    for place, document in enumerate(documents):
        if document.document_id in seen:
            raise InvalidRequest(
                f"documents[{place}].document_id {document.document_id!r} stands in this request already: "
                "send each document once",
                field=f"documents[{place}].document_id",
                reason="DUPLICATE_DOCUMENT_ID",
            )
        seen.add(document.document_id)
