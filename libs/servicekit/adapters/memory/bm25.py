"""Okapi BM25 over a small set of texts, recomputed when asked. Used by the memory vector store."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from servicekit.domain.sentences import content_terms

# Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), usual constants.
K1 = 1.2
B = 0.75


class Bm25Index:
    """Term counts of keyed texts."""

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        self._counts = {key: Counter(content_terms(text)) for key, text in texts}
        self._frequencies = Counter(term for counts in self._counts.values() for term in counts)
        lengths = [counts.total() for counts in self._counts.values()]
        self._mean_length = sum(lengths) / len(lengths) if lengths else 0.0

    def score(self, query: str) -> Mapping[str, float]:
        """Scores over 0 by key, unordered."""
        terms = set(content_terms(query))
        scores = {}
        for key, counts in self._counts.items():
            score = sum(self._term_score(term, counts) for term in terms if term in counts)
            if score > 0:
                scores[key] = score
        return scores

    def _term_score(self, term: str, counts: Counter[str]) -> float:
        total, holding = len(self._counts), self._frequencies[term]
        rarity = math.log(1 + (total - holding + 0.5) / (holding + 0.5))
        length = 1 - B + B * counts.total() / self._mean_length
        return rarity * counts[term] * (K1 + 1) / (counts[term] + K1 * length)
