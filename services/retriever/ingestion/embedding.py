"""Embeds the chunks of drafts. A step of `indexing.py`.

In slices, so that a long document neither fills the embedder's queue nor keeps others waiting behind it.
"""

from array import array
from collections.abc import Sequence

from servicekit.ports.embedder import Vector
from services.retriever.ingestion.progress import Stage
from services.retriever.ingestion.work import Work

SLICE = 64


async def embed(work: Work) -> None:
    """Give each draft its vectors.

    Raises:
        BackendUnavailable, Overloaded: the embedder is away, or has too much to do.
    """
    texts = [text for _, draft in work.drafts() for text in draft.search_texts]
    if not texts:
        return
    await work.progress.enter(Stage.EMBEDDING)
    vectors: list[Vector] = []
    for start in range(0, len(texts), SLICE):
        await work.progress.count(len(vectors), len(texts))
        vectors += [compact(one) for one in await work.embedder.embed_documents(texts[start : start + SLICE])]
    await work.progress.count(len(vectors), len(texts))
    place = 0
    for item, draft in work.drafts():
        item.vectors = vectors[place : place + len(draft.chunks)]
        place += len(draft.chunks)


def compact(vector: Sequence[float]) -> Vector:
    """The same values in a tenth of the memory: embedders compute in 32 bits, Python's floats are objects."""
    return array("f", vector)
