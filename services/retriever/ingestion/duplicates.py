"""Finds documents whose text another document has already. A step of `indexing.py`, after the embedding.

Keeps no state of its own: the store is asked, by content hash for the same chunks and by vector for like ones; what it
names is then compared word by word. Documents that are indexed at the very same time do not see each other.
"""

from collections.abc import Iterator, Sequence

from servicekit.domain.chunk import Chunk
from servicekit.ports.embedder import Vector
from servicekit.ports.vector_store import ChunkPlace, SearchMode, SearchQuery, StoredDocument, VectorStore
from services.retriever.ingestion.quality import Decision, Flag, likeness, shingles
from services.retriever.ingestion.work import Draft, Item, Work

NEAR_COSINE, NEAR_LIKENESS = 0.95, 0.8
# Of shorter texts the shingles are too few to say anything but "the same".
MIN_SHINGLES = 20
_PROBE_EVERY, _MAX_PROBES = 32, 3
_TOP_K = 3
_MAX_COMPARED = 3
_MAX_CHUNKS_READ = 200


class DuplicateStep:
    """Flags or refuses, as decided."""

    def __init__(self, store: VectorStore, *, decision: Decision) -> None:
        self._store = store
        self._decision = decision

    async def __call__(self, work: Work) -> None:
        """Compare each draft with what is stored."""
        if self._decision is Decision.OFF:
            return
        for item, draft in list(work.drafts()):
            flag, other = await self._find(work, item, draft)
            if flag is None:
                continue
            item.duplicate_of = other
            item.flag(flag)
            if self._decision is Decision.REFUSE:
                nearly = "" if flag is Flag.EXACT_DUPLICATE else "nearly "
                item.refuse_content(
                    f"is {nearly}the text of {other!r}, which is indexed: hand in one of them", reason=flag.upper()
                )

    async def _find(self, work: Work, item: Item, draft: Draft) -> tuple[Flag | None, str]:
        mine = [chunk.content_hash for chunk in draft.chunks]
        ours: frozenset[tuple[str, ...]] | None = None
        near = ""
        for other in await self._candidates(work, item, draft):
            theirs = await self._read(work.tenant, other)
            if [chunk.content_hash for chunk in theirs] == mine[: len(theirs)] and other.chunk_count == len(mine):
                return Flag.EXACT_DUPLICATE, other.document_id
            ours = shingles(chunk.text for chunk in draft.chunks) if ours is None else ours
            their_shingles = shingles(chunk.text for chunk in theirs)
            if ours == their_shingles and ours:
                return Flag.EXACT_DUPLICATE, other.document_id
            if len(ours) >= MIN_SHINGLES and likeness(ours, their_shingles) >= NEAR_LIKENESS:
                near = near or other.document_id
        return (Flag.NEAR_DUPLICATE, near) if near else (None, "")

    async def _candidates(self, work: Work, item: Item, draft: Draft) -> Sequence[StoredDocument]:
        """Live documents that hold the same chunk, or one like it."""
        tenant, model = work.tenant, work.embedder.model.id
        names: dict[str, None] = {}
        probes = list(_probes(draft, item.vectors))
        stored = await self._store.get_chunks(tenant, [chunk.content_hash for chunk, _ in probes])
        names.update((one.chunk.document_id, None) for one in stored.values() if one.chunk is not None)
        for _, vector in probes:
            query = SearchQuery(SearchMode.DENSE, "", vector, _TOP_K, model=model, background=True)
            hits = await self._store.search(tenant, query)
            names.update((hit.chunk.document_id, None) for hit in hits.chunks if (hit.dense_score or 0.0) > NEAR_COSINE)
        names.pop(draft.document.document_id, None)
        if not names:
            return ()
        documents = await self._store.get_documents(tenant, list(names)[:_MAX_COMPARED])
        return [one for one in documents.values() if one.delete_time is None and one.retract_time is None]

    async def _read(self, tenant: str, document: StoredDocument) -> Sequence[Chunk]:
        places = [
            ChunkPlace(document.document_id, ordinal) for ordinal in range(min(document.chunk_count, _MAX_CHUNKS_READ))
        ]
        found = await self._store.get_places(tenant, places)
        return [found[place] for place in places if place in found]


def _probes(draft: Draft, vectors: Sequence[Vector]) -> Iterator[tuple[Chunk, Vector]]:
    """One chunk from the middle, of long documents up to three, evenly spread."""
    count = min(_MAX_PROBES, 1 + len(draft.chunks) // _PROBE_EVERY)
    for number in range(count):
        place = (2 * number + 1) * len(draft.chunks) // (2 * count)
        yield draft.chunks[place], vectors[place]
