"""Tells which texts are copies of others but for a few words, so that no model is judged on what it was trained on.

Pure; used by the training modules to draw folds and to leave a whole set out.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

_WORDS = 6
_SHARE = 0.3


def shingles(text: str) -> frozenset[str]:
    """Every run of six words; of a shorter text, of all of it."""
    words = text.lower().split()
    runs = (tuple(words[start : start + _WORDS]) for start in range(max(1, len(words) - _WORDS + 1)))
    return frozenset(map(" ".join, runs))


def without_copies(texts: Sequence[str], *, of: Iterable[str]) -> list[int]:
    """Places of the texts that share less than three tenths of their runs of words with the others together."""
    taken = frozenset().union(*map(shingles, of))
    return [place for place, text in enumerate(texts) if _share(shingles(text), taken) < _SHARE]


def clusters(texts: Sequence[str]) -> list[int]:
    """A number for every text: an earlier one's where three tenths of the runs are that cluster's, else its own."""
    owners: dict[str, int] = {}
    numbers: list[int] = []
    for text in texts:
        own = shingles(text)
        seen = Counter(owners[shingle] for shingle in own if shingle in owners)
        commonest = min(seen, key=lambda cluster: (-seen[cluster], cluster), default=len(numbers))
        number = commonest if seen.total() >= _SHARE * len(own) else len(numbers)
        numbers.append(number)
        for shingle in own:
            owners.setdefault(shingle, number)
    return numbers


def _share(own: frozenset[str], taken: frozenset[str]) -> float:
    return len(own & taken) / len(own)
