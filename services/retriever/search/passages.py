"""Brings in the neighbours of found chunks and joins what follows each other into passages. Pure.

Called by `searching.py`. A passage is a run of chunks that follow each other in one revision of a document. It stands
where the best of its found chunks ranked, and its chunks stand in it in reading order.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from servicekit.domain.chunk import Chunk, ScoredChunk
from servicekit.ports.vector_store import ChunkPlace


def neighbour_places(found: Sequence[ScoredChunk], *, width: int) -> list[ChunkPlace]:
    """The places up to `width` before and after each found chunk that no found chunk has, each once."""
    held = {_place(one.chunk) for one in found}
    wanted: dict[ChunkPlace, None] = {}
    for one in found:
        for distance in range(-width, width + 1):
            place = ChunkPlace(one.chunk.document_id, one.chunk.ordinal + distance)
            if place.ordinal >= 0 and place not in held:
                wanted[place] = None
    return list(wanted)


def with_neighbours(
    found: Sequence[ScoredChunk], chunks: Mapping[ChunkPlace, Chunk], *, width: int
) -> tuple[ScoredChunk, ...]:
    """The found chunks, best first, then their neighbours, each with the score of the best chunk that brought it.

    A chunk of another revision is left out: its document was replaced after the search.
    """
    held = {_place(one.chunk) for one in found}
    brought: dict[ChunkPlace, ScoredChunk] = {}
    for one in found:
        for distance in range(-width, width + 1):
            place = ChunkPlace(one.chunk.document_id, one.chunk.ordinal + distance)
            chunk = chunks.get(place)
            if chunk is None or place in held or place in brought or chunk.revision != one.chunk.revision:
                continue
            brought[place] = ScoredChunk(chunk, rank=0, score=one.score, neighbour=True)
    return (*found, *brought.values())


def in_passages(chunks: Sequence[ScoredChunk]) -> tuple[ScoredChunk, ...]:
    """The same chunks, ranked anew from 1, passage by passage; found ones come in by rank."""
    runs = [run for run in _runs(chunks) if any(not one.neighbour for one in run)]
    runs.sort(key=lambda run: min(one.rank for one in run if not one.neighbour))
    placed: list[ScoredChunk] = []
    for passage, run in enumerate(runs, start=1):
        before: Chunk | None = None
        for one in run:
            overlap = _overlap(before, one.chunk)
            placed.append(replace(one, rank=len(placed) + 1, passage=passage, overlap_chars=overlap))
            before = one.chunk
    return tuple(placed)


def _runs(chunks: Iterable[ScoredChunk]) -> Iterator[list[ScoredChunk]]:
    run: list[ScoredChunk] = []
    for one in sorted(chunks, key=lambda one: _position(one.chunk)):
        if run and _position(one.chunk) != (*_position(run[-1].chunk)[:2], run[-1].chunk.ordinal + 1):
            yield run
            run = []
        run.append(one)
    if run:
        yield run


def _position(chunk: Chunk) -> tuple[str, int, int]:
    return chunk.document_id, chunk.revision, chunk.ordinal


def _place(chunk: Chunk) -> ChunkPlace:
    return ChunkPlace(chunk.document_id, chunk.ordinal)


def _overlap(before: Chunk | None, chunk: Chunk) -> int:
    return 0 if before is None else min(len(chunk.text), max(0, before.end - chunk.start))
