"""Judges what a search found of a document: one whole edition, or what is wrong with it. Pure; used by the search loop.

A searcher knows what it may expect by what was known when its search began and when it ended: only what held all the
time in between binds the store.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from binnacle.type.v1.chunk_pb2 import Chunk
from tests.chaos.ingest_documents import text_of


@dataclass(frozen=True, slots=True)
class Findings:
    """What one answer showed of one document: the edition that it holds, and faults by kind."""

    edition: int = 0
    faults: tuple[tuple[str, str], ...] = ()


@dataclass
class Known:
    """What is known of a document while it is written and searched.

    `visible`: it was seen, and nothing that may hide it was begun since. `hidden`: what hides it was acknowledged,
    and nothing that may bring it back was begun since. `leaving`: from the begin of the one to the begin of the other.
    `changes` counts them all.
    """

    document_id: str
    editions: int = 0
    visible: bool = False
    hidden: bool = False
    leaving: bool = False
    changes: int = 0
    newest_seen: int = 0

    def submitting(self, edition: int) -> None:
        """An edition is on its way."""
        self.editions = max(self.editions, edition)
        self.hidden = self.leaving = False
        self.changes += 1

    def withdrawing(self) -> None:
        """It may be gone from now on."""
        self.visible, self.leaving = False, True
        self.changes += 1

    def withdrawn(self) -> None:
        """It is gone."""
        self.hidden = True
        self.changes += 1

    def seen(self, edition: int, *, since: int) -> None:
        """A search that began at change number `since` found it."""
        if since == self.changes:
            self.newest_seen = max(self.newest_seen, edition)
            self.visible = not self.leaving


@dataclass
class Tally:
    """What all searches of a run showed, and the first faults in words."""

    searches: int = 0
    unavailable: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)

    def note(self, kind: str, what: str) -> None:
        """A fault."""
        self.counts[kind] += 1
        self.told.append(f"{kind}: {what}")


def judge(document_id: str, chunks: Sequence[Chunk], *, editions: int) -> Findings:
    """All chunks that an answer has of a document: they must be one revision, whole, each once."""
    if not chunks:
        return Findings()
    faults = list(_doubled(chunks))
    revisions = sorted({chunk.revision for chunk in chunks})
    if len(revisions) > 1:
        faults.append(("mixed_revisions", f"{document_id} with revisions {revisions}"))
    edition = next((one for one in range(editions, 0, -1) if _is_whole(chunks, text_of(document_id, one))), 0)
    if not edition and not faults:
        ordinals = sorted(chunk.ordinal for chunk in chunks)
        faults.append(("mixed_revisions", f"{document_id} revision {revisions[0]} in part: {ordinals}"))
    return Findings(edition, tuple(faults))


def judge_together(chunks: Sequence[Chunk]) -> Iterable[tuple[str, str]]:
    """Chunks of many documents, not all of any: each once, and no document in two revisions."""
    yield from _doubled(chunks)
    revisions: dict[str, set[int]] = {}
    for chunk in chunks:
        revisions.setdefault(chunk.document_id, set()).add(chunk.revision)
    for document_id, seen in revisions.items():
        if len(seen) > 1:
            yield "mixed_revisions", f"{document_id} with revisions {sorted(seen)}"


def _doubled(chunks: Sequence[Chunk]) -> Iterable[tuple[str, str]]:
    for names in (
        [chunk.chunk_id for chunk in chunks],
        [f"{chunk.document_id}/{chunk.revision}/{chunk.ordinal}" for chunk in chunks],
    ):
        doubled = [name for name, times in Counter(names).items() if times > 1]
        if doubled:
            yield "duplicate_chunks", f"{doubled[0]} and {len(doubled) - 1} more stand twice in an answer"


def _is_whole(chunks: Sequence[Chunk], text: str) -> bool:
    """Each chunk is the text at its place, the places are counted without a gap, and together they are the text."""
    ordered = sorted(chunks, key=lambda chunk: chunk.ordinal)
    if [chunk.ordinal for chunk in ordered] != list(range(len(ordered))):
        return False
    reached = 0
    for chunk in ordered:
        if text[chunk.span.start : chunk.span.end] != chunk.text or text[reached : chunk.span.start].strip():
            return False
        reached = max(reached, chunk.span.end)
    return not text[reached:].strip()
