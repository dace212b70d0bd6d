"""Chooses results that are relevant and unlike each other: maximal marginal relevance. Pure; called by `searching.py`.

Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking" (SIGIR 1998).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from servicekit.domain.chunk import ScoredChunk
from servicekit.ports.embedder import Vector


def diversify(
    chunks: Sequence[ScoredChunk], vectors: Mapping[str, Vector], *, relevance: float, top_k: int
) -> tuple[ScoredChunk, ...]:
    """The `top_k` chunks of greatest marginal relevance, in the order they were chosen; the best is always first.

    A chunk's marginal relevance is `relevance` times its score, scaled to 0..1 within `chunks`, less the rest of the
    weight times its cosine to the nearest chunk already chosen (at least 0). It never grows from one turn to the next.
    A chunk without a vector is taken to be like no other.
    """
    if not chunks:
        return ()
    scores = _scaled(np.array([chunk.score for chunk in chunks]))
    matrix = _matrix(chunks, vectors)
    nearest = np.zeros(len(chunks))
    left = np.ones(len(chunks), dtype=bool)
    chosen = []
    for rank in range(1, min(top_k, len(chunks)) + 1):
        marginal = np.where(left, relevance * scores - (1.0 - relevance) * nearest, -np.inf)
        place = int(np.argmax(marginal))  # the first of equals, which is the better ranked
        worth = float(marginal[place])
        chosen.append(replace(chunks[place], rank=rank, score=worth, mmr_score=worth))
        left[place] = False
        nearest = np.maximum(nearest, matrix @ matrix[place])
    return tuple(chosen)


def _scaled(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else np.ones_like(scores)


def _matrix(chunks: Sequence[ScoredChunk], vectors: Mapping[str, Vector]) -> npt.NDArray[np.float64]:
    width = len(next(iter(vectors.values()))) if vectors else 1
    matrix = np.zeros((len(chunks), width))
    for row, chunk in enumerate(chunks):
        if (vector := vectors.get(chunk.chunk.chunk_id)) is not None:
            matrix[row] = vector
    return matrix
