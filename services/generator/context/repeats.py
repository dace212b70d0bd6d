"""Finds what chunks repeat of each other. Pure.

Called by `packing.py` for chunks that stand whole in others, by `rendering.py` for what neighbours have in common.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from servicekit.domain.chunk import Chunk, ScoredChunk

# Texts that are looked through for others, at most: a hundred chunks of usual length need a tenth.
_SEARCHED_CHARS = 4_000_000


def holders(chunks: Sequence[ScoredChunk]) -> Mapping[int, tuple[int, ...]]:
    """For each chunk whose text stands in others: their places; of equal texts the best ranked holds the others.

    Containment is looked for among the shortest texts first until a bound on the work; equality always.
    """
    texts = [scored.chunk.text.strip() for scored in chunks]
    first: dict[str, int] = {}
    for index in sorted(range(len(chunks)), key=lambda index: (chunks[index].neighbour, -chunks[index].score)):
        first.setdefault(texts[index], index)
    found: dict[int, tuple[int, ...]] = {}
    searched = 0
    by_length = sorted(first.values(), key=lambda index: len(texts[index]))
    for place, index in enumerate(by_length):
        longer = [other for other in by_length[place + 1 :] if len(texts[other]) > len(texts[index])]
        searched += sum(len(texts[other]) for other in longer)
        if searched > _SEARCHED_CHARS:
            break
        if holding := tuple(other for other in longer if texts[index] in texts[other]):
            found[index] = holding
    for index, text in enumerate(texts):
        if index != first[text]:
            found[index] = (first[text], *found.get(first[text], ()))
    return found


def without_overlap(scored: ScoredChunk, before: Chunk | None) -> ScoredChunk:
    """The chunk without what its begin repeats of the end of the one before it, if that is its neighbour.

    The texts decide, not what is said of them: a chunk may have been redacted or shortened since.
    """
    chunk = scored.chunk
    if before is None or (before.document_id, before.revision) != (chunk.document_id, chunk.revision):
        return scored
    for overlap in (scored.overlap_chars, before.end - chunk.start):
        if 0 < overlap < len(chunk.text) and before.text.endswith(chunk.text[:overlap]):
            rest = chunk.text[overlap:].lstrip()
            return (
                replace(scored, chunk=part_of(chunk, len(chunk.text) - len(rest), len(chunk.text))) if rest else scored
            )
    return scored


def part_of(chunk: Chunk, begin: int, end: int) -> Chunk:
    """The chunk with characters `begin` to `end` of its text, and their place in the document.

    The hash stays that of the whole, by which it can be fetched. Where the text is not as long as its place in the
    document (it was redacted), the place stays that of the whole.
    """
    text = chunk.text[begin:end]
    if chunk.end - chunk.start != len(chunk.text):
        return replace(chunk, text=text)
    return replace(chunk, text=text, start=chunk.start + begin, end=chunk.start + end)
