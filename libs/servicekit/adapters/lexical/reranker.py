"""A reranker without a model: phrases of the query, and nearness to what ranks first. Chosen by `lexical://`.

Opened by `servicekit.adapters.registry` for the retriever. Over the candidates of one search it adds to the search's
own score, each scaled to 0..1 within the list:

- the share of the query's word pairs that stand side by side in the text, words stemmed as the full-text search does;
- the cosine to the mean vector of the three best: relevant texts are alike (pseudo-relevance feedback, as in Rocchio,
  "Relevance Feedback in Information Retrieval", 1971).

Measured (`python -m tests.bench.retrieval_quality`): a small gain in nDCG@10 on each collection tried. What did not
hold on every one: best sentence, coverage of words, late interaction, learned weights.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from servicekit.domain.sentences import content_terms
from servicekit.errors import InvalidRequest
from servicekit.ports.embedder import Vector
from servicekit.ports.reranker import Candidate

PAIR_WEIGHT = 0.2
NEARNESS_WEIGHT = 0.2
_BEST = 3
# Text beyond this is not looked at: a chunk is shorter, and the event loop is held meanwhile.
_MAX_CHARS = 4_096

_Array = npt.NDArray[np.float64]


class LexicalReranker:
    """Scores 0 to 1.4; a list of one candidate scores 1.4 less what it lacks."""

    id = "lexical@1"
    wants_vectors = True

    async def rerank(self, query: str, candidates: Sequence[Candidate]) -> Sequence[float]:
        """A score for each candidate in order."""
        if not candidates:
            return ()
        base = np.array([one.score for one in candidates])
        pairs = np.array(_pair_shares(query, candidates))
        nearness = _nearness(base, [one.vector for one in candidates])
        scores = scaled(base) + PAIR_WEIGHT * scaled(pairs) + NEARNESS_WEIGHT * scaled(nearness)
        return [float(score) for score in scores]

    async def ping(self) -> None:
        """Always answers."""


def scaled(values: _Array) -> _Array:
    """The values from 0 to 1; all alike, they are 0, since they tell nothing."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _pair_shares(query: str, candidates: Sequence[Candidate]) -> list[float]:
    wanted = set(pairwise(content_terms(query[:_MAX_CHARS])))
    if not wanted:
        return [0.0] * len(candidates)
    return [len(wanted & set(pairwise(content_terms(one.text[:_MAX_CHARS])))) / len(wanted) for one in candidates]


def _nearness(base: _Array, vectors: Sequence[Vector | None]) -> _Array:
    """Cosine of each candidate to the mean of the best three; 0 for one without a vector."""
    known = {place: np.asarray(vector, dtype=np.float64) for place, vector in enumerate(vectors) if vector is not None}
    best = [known[int(place)] for place in np.argsort(-base, kind="stable")[:_BEST] if int(place) in known]
    if not best:
        return np.zeros(len(base))
    middle = np.mean(best, axis=0)
    length = float(np.linalg.norm(middle)) or 1.0
    return np.array([float(known[place] @ middle) / length if place in known else 0.0 for place in range(len(base))])


@asynccontextmanager
async def open_reranker(url: str, *, api_key: str | None = None) -> AsyncIterator[LexicalReranker]:
    """The reranker; the URL says nothing more, and a key opens nothing.

    Raises:
        InvalidRequest: the URL does say more.
    """
    del api_key
    if url != "lexical://":
        raise InvalidRequest(f"reranker_url must be lexical:// alone, got {url!r}", field="reranker_url")
    yield LexicalReranker()
