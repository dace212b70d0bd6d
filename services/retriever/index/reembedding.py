"""Moves indexes to a new embedding model: builds each anew beside the old one, then switches it at one instant.

A background task of the service, as long as a previous embedder is configured. What it has done is in the store, so it
goes on where a killed process stopped; several processes at it repeat each other's work and harm nothing. Searches and
loads come first: it embeds a few texts at a time, behind every query, and rests in between; but for the last few, which
it does without, and with writes held back for that moment, since a steady load would be ahead of it for ever.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from servicekit.errors import BinnacleError, NotReady
from servicekit.ports.embedder import Embedder, EmbeddingModel, Vector
from servicekit.ports.vector_store import IndexedChunk, VectorStore
from servicekit.telemetry.metrics import counter, gauge
from services.retriever.index.write_gate import WriteGate
from services.retriever.ingestion.chunking import ChunkRules
from services.retriever.ingestion.preparing import MAX_CONTEXT_TOKENS, SPECIAL_TOKENS, search_text

# Read at once and written at once; what a kill costs.
WRITE_CHUNKS = 256
# Embedded at once, so that a load's texts wait behind no more of these.
EMBED_CHUNKS = 16
# The longest text that is embedded: a chunk by `ChunkRules`, its title and headings, and the special tokens.
MAX_EMBEDDED_TOKENS = ChunkRules().max_tokens + MAX_CONTEXT_TOKENS + SPECIAL_TOKENS
# So often the switch is tried without holding writes back.
FREE_ROUNDS = 2
RESCAN_S = 60.0
_FIRST_RETRY_S = 1.0
_MAX_REST_S = 0.5

REEMBEDDED = counter("reembedded", meaning="Chunks embedded anew for another model.", unit="chunks")
TENANTS_LEFT = gauge("reembedding_tenants", meaning="Tenants whose index is still of the previous model.")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RebuildProgress:
    """How far one tenant's new index is; `chunks_done` counts from the start of this process."""

    model: str
    chunks_done: int
    chunks_total: int


@dataclass(slots=True)
class _Rebuild:
    """One tenant's rebuild; `cut` counts texts that the new model cannot read whole."""

    tenant: str
    chunks_total: int
    chunks_done: int = 0
    cut: int = 0


class Reembedder:
    """Rebuilds every index of the previous model with the current embedder.

    Args:
        store: the indexes.
        current: the embedder of the new ones.
        hurried: the same, giving way to nothing but queries, for the last few texts.
        gate: holds writes back where they would be ahead for ever.
        previous: the model of those that are to be moved; others are left alone.
        share: how much of the time is worked, 0 to 1; the rest is rested.
        sleep: waits, in seconds.
    """

    def __init__(
        self,
        *,
        store: VectorStore,
        current: Embedder,
        previous: EmbeddingModel,
        hurried: Embedder | None = None,
        gate: WriteGate | None = None,
        share: float = 0.5,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._current = current
        self._hurried = hurried or current
        self._gate = gate or WriteGate()
        self._previous = previous
        self._share = share
        self._sleep = sleep
        self._running: dict[str, _Rebuild] = {}

    def progress(self, tenant: str) -> RebuildProgress | None:
        """How far a tenant's rebuild is; None where none is going on in this process."""
        rebuild = self._running.get(tenant)
        if rebuild is None:
            return None
        done = min(rebuild.chunks_done, rebuild.chunks_total)
        return RebuildProgress(self._current.model.id, done, rebuild.chunks_total)

    async def run(self) -> None:
        """Move whatever is due, for ever: a process with the settings of before may still begin an old index."""
        pause_s = _FIRST_RETRY_S
        while True:
            complete = await self.move_due()
            pause_s = RESCAN_S if complete else min(pause_s * 2, RESCAN_S)
            await self._sleep(pause_s)
            if complete:
                pause_s = _FIRST_RETRY_S

    async def move_due(self) -> bool:
        """Move every index of the previous model, one after another; whether all that could be found are moved."""
        try:
            due = await self._due()
        except BinnacleError as error:
            log.warning("reembedding.store_away", error=error.message, reason=error.reason)
            return False
        complete = True
        for place, tenant in enumerate(due):
            TENANTS_LEFT.set(len(due) - place)
            complete &= await self._moved(tenant)
        TENANTS_LEFT.set(0 if complete else len(due))
        return complete

    async def _due(self) -> Sequence[str]:
        if self._previous.id == self._current.model.id:
            return ()
        tenants = sorted(await self._store.list_tenants())
        return [one for one in tenants if (await self._store.describe(one)).model == self._previous.id]

    async def _moved(self, tenant: str) -> bool:
        """Move one index; one that fails for now hinders no other, and is gone on with later."""
        try:
            await self._move(tenant)
        except BinnacleError as error:
            log.warning("reembedding.interrupted", tenant=tenant, error=error.message, reason=error.reason)
            return False
        finally:
            self._running.pop(tenant, None)
        return True

    async def _move(self, tenant: str) -> None:
        model = self._current.model
        started_s = time.monotonic()
        rebuild = _Rebuild(tenant, (await self._store.describe(tenant)).chunks)
        self._running[tenant] = rebuild
        log.info("reembedding.started", tenant=tenant, model=model.id, chunks=rebuild.chunks_total)
        await self._store.begin_rebuild(tenant, model=model.id, dimension=model.dimension)
        rounds = 0
        while not await self._finished(rebuild, hold_writes=rounds >= FREE_ROUNDS):
            rounds += 1
        log.info(
            "reembedding.switched",
            tenant=tenant,
            model=model.id,
            chunks=rebuild.chunks_done,
            cut=rebuild.cut,
            elapsed_s=round(time.monotonic() - started_s, 1),
        )

    async def _finished(self, rebuild: _Rebuild, *, hold_writes: bool) -> bool:
        """Catch up with the writes and switch, unless further ones came; another process may have switched, too."""
        tenant = rebuild.tenant
        await self._catch_up(rebuild)
        if not hold_writes:
            switched = await self._store.finish_rebuild(tenant)
        else:
            try:
                async with self._gate.still(tenant):
                    await self._catch_up(rebuild)
                    switched = await self._store.finish_rebuild(tenant)
            except TimeoutError:
                log.warning("reembedding.writes_do_not_end", tenant=tenant)
                return False
        return switched or (await self._store.describe(tenant)).model == self._current.model.id

    async def _catch_up(self, rebuild: _Rebuild) -> None:
        """Embed and write until the new index lacks nothing."""
        while lacking := await self._store.chunks_to_rebuild(rebuild.tenant, limit=WRITE_CHUNKS):
            vectors: list[Vector] = []
            last = len(lacking) < WRITE_CHUNKS
            for first in range(0, len(lacking), EMBED_CHUNKS):
                vectors += await self._embed(rebuild, lacking[first : first + EMBED_CHUNKS], last=last)
            embedded = [replace(one, vector=vector) for one, vector in zip(lacking, vectors, strict=True)]
            await self._store.write_rebuilt(rebuild.tenant, embedded)
            rebuild.chunks_done += len(embedded)
            # Chunks came or went since the total was taken.
            rebuild.chunks_total = max(rebuild.chunks_total, rebuild.chunks_done)
            REEMBEDDED.inc(len(embedded))

    async def _embed(self, rebuild: _Rebuild, chunks: Sequence[IndexedChunk], *, last: bool) -> Sequence[Vector]:
        """A few vectors, then the rest that is due for them, unless they are the last."""
        started_s = time.monotonic()
        texts = await asyncio.to_thread(lambda: [search_text(one.chunk, self._current) for one in chunks])
        vectors = await (self._hurried if last else self._current).embed_documents(texts)
        rebuild.cut += await asyncio.to_thread(self._count_cut, texts)
        worked_s = time.monotonic() - started_s
        await self._sleep(0 if last else min(worked_s * (1 / self._share - 1), _MAX_REST_S))
        return vectors

    def _count_cut(self, texts: Sequence[str]) -> int:
        room = self._current.model.max_tokens - SPECIAL_TOKENS
        return sum(self._current.tokenizer.count(text) > room for text in texts)


def check_window(current: EmbeddingModel, *, previous: EmbeddingModel, chunk_tokens: int) -> None:
    """Refuse a new model that cannot read the chunks that were cut for the previous one.

    Raises:
        NotReady: names both windows, and the way that is left.
    """
    needed = min(previous.max_tokens, chunk_tokens)
    if current.max_tokens < needed:
        raise NotReady(
            f"embedder_url: {current.name} reads {current.max_tokens} tokens, and chunks of {needed} were cut for "
            f"{previous.name}: choose a model with a larger window, or submit the documents again into a new "
            "vector store and leave previous_embedder_url unset",
            reason="EMBEDDING_WINDOW_TOO_SMALL",
        )
