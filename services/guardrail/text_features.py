"""Turns a text into hashed words, word pairs and runs of characters, a millisecond for two thousand characters.

Pure; shared by `text_model.py`, which serves, and `training/fitting.py`, so that both see the same features.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_CHARS = 20_000
"""Characters read of one text; callers that must read more judge it in windows."""

_BASE = np.uint64(0x9E3779B97F4A7C15)
_BASE_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_PAIR = np.uint64(0x94D049BB133111EB)
_SPACE, _WORD, _SYMBOL = 0, 1, 2
_PLANE = 0x10000  # beyond the basic plane stand pictures and rare scripts: symbols
_BLANK = 0x20


@dataclass(frozen=True, slots=True)
class FeatureSettings:
    """How texts are read. Two blocks of `2 ** bits` features: words and their pairs, then runs of characters."""

    bits: int = 16
    shortest_run: int = 3
    longest_run: int = 5

    def __post_init__(self) -> None:
        if not 8 <= self.bits <= 20 or not 1 <= self.shortest_run <= self.longest_run <= 8:  # noqa: PLR2004  # the bounds stand in the message
            raise ValueError(f"features need bits 8..20 and 1 <= shortest_run <= longest_run <= 8, got {self!r}")

    @property
    def size(self) -> int:
        """Features there are."""
        return 2 << self.bits


@dataclass(frozen=True, slots=True)
class SparseText:
    """A text's features: ascending places, and values of which each block has length 1."""

    places: NDArray[np.int64]
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SparseTexts:
    """Several texts' features: `rows[i]` is the text, by its number, that has `values[i]` at `places[i]`."""

    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    values: NDArray[np.float32]


class TextReader:
    """Reads texts into features by one setting; safe in any thread."""

    def __init__(self, settings: FeatureSettings) -> None:
        self.settings = settings
        self._kinds = _kinds()
        steps = np.arange(MAX_CHARS + 1, dtype=np.uint64)
        self._powers = _powers(_BASE, len(steps))
        self._inverse_powers = _powers(_BASE_INVERSE, len(steps))

    def read(self, text: str) -> SparseText:
        """Features of the text's first 20,000 characters; letters' case is ignored."""
        read = self.read_all([text])
        return SparseText(read.places, read.values)

    def read_all(self, texts: Sequence[str]) -> SparseTexts:
        """Features of each text, as `read` gives them; short texts are read together, which costs little more."""
        found = [self._read_group(first, group) for first, group in _groups(texts)]
        return SparseTexts(
            rows=np.concatenate([each.rows for each in found]) if found else np.empty(0, np.int64),
            places=np.concatenate([each.places for each in found]) if found else np.empty(0, np.int64),
            values=np.concatenate([each.values for each in found]) if found else np.empty(0, np.float32),
        )

    def _read_group(self, first: int, group: Sequence[str]) -> SparseTexts:
        """Texts that follow each other, the first of them number `first`, read as one with a blank between them."""
        starts = np.cumsum([0, *(len(text) + 1 for text in group)])[:-1]
        codes = np.frombuffer("\n".join(group).encode("utf-32-le", "surrogatepass"), dtype="<u4")
        kinds = self._kinds[np.minimum(codes, _PLANE)]
        words = _block(*self._word_hashes(codes, kinds, starts), self.settings.bits)
        runs = _block(*self._run_hashes(codes, kinds, starts), self.settings.bits)
        rows = np.concatenate([words.rows, runs.rows])
        order = np.argsort(rows, kind="stable")
        places = np.concatenate([words.places, runs.places + (1 << self.settings.bits)])
        return SparseTexts(rows[order] + first, places[order], np.concatenate([words.values, runs.values])[order])

    def _word_hashes(
        self, codes: NDArray[np.uint32], kinds: NDArray[np.uint8], texts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Every word and every group of symbols, and every pair of words that follow each other; and whose they are."""
        if not len(codes):
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint64)
        starts = np.flatnonzero((np.diff(kinds, prepend=_SPACE) != 0) & (kinds != _SPACE))
        changes = np.flatnonzero(np.diff(kinds)) + 1
        ends = np.concatenate([changes, [len(codes)]])[np.searchsorted(changes, starts, side="right")]
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum((codes + np.uint64(1)) * self._powers[: len(codes)])])
        hashes = (sums[ends] - sums[starts]) * self._inverse_powers[starts]
        rows = np.searchsorted(texts, starts, side="right") - 1
        is_word = kinds[starts] == _WORD
        words, word_rows = hashes[is_word], rows[is_word]
        paired = word_rows[:-1] == word_rows[1:]
        pairs = (words[:-1] * _PAIR + words[1:])[paired]
        return np.concatenate([rows, word_rows[:-1][paired]]), np.concatenate([hashes, pairs])

    def _run_hashes(
        self, codes: NDArray[np.uint32], kinds: NDArray[np.uint8], texts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Runs of characters that cross no blank; blanks in a row count as one, and words are fenced by them."""
        blank = kinds == _SPACE
        kept = np.flatnonzero(~(blank & np.concatenate([[True], blank[:-1]])))
        fenced = np.concatenate([[_BLANK], np.where(blank, _BLANK, codes)[kept], [_BLANK]]).astype(np.uint64)
        # A run that begins with a blank belongs to the text of the character behind it.
        owners = np.searchsorted(texts, np.concatenate([kept, [len(codes), len(codes)]]), side="right") - 1
        is_blank = fenced == _BLANK
        owners[1:][~is_blank[1:]] = owners[:-1][~is_blank[1:]]
        hashes: list[NDArray[np.uint64]] = []
        rows: list[NDArray[np.int64]] = []
        for length in range(self.settings.shortest_run, self.settings.longest_run + 1):
            count = len(fenced) - length + 1
            if count <= 0:
                break
            sums = np.full(count, length, dtype=np.uint64)
            crosses = np.zeros(count, dtype=bool)
            for step in range(length):
                sums = sums * _BASE + fenced[step : step + count]
                if 0 < step < length - 1:
                    crosses |= is_blank[step : step + count]
            hashes.append(sums[~crosses])
            rows.append(owners[:count][~crosses])
        if not hashes:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint64)
        return np.concatenate(rows), np.concatenate(hashes)


def _groups(texts: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Texts in lower case, cut at the most that is read, in groups that are no longer than that together."""
    group: list[str] = []
    first = length = 0
    for number, text in enumerate(texts):
        lowered = text[:MAX_CHARS].lower()[:MAX_CHARS]
        if group and length + len(lowered) + 1 > MAX_CHARS:
            yield first, group
            group, first, length = [], number, 0
        group.append(lowered)
        length += len(lowered) + 1
    if group:
        yield first, group


def _block(rows: NDArray[np.int64], hashes: NDArray[np.uint64], bits: int) -> SparseTexts:
    """Hashes as places, with 1 + log of how often each occurs in its text, each text's brought to length 1."""
    mixed = hashes ^ (hashes >> np.uint64(32))
    mixed *= _MIX
    keys, counts = np.unique((rows << bits) | (mixed >> np.uint64(64 - bits)).astype(np.int64), return_counts=True)
    values = 1.0 + np.log(counts)
    owners = keys >> bits
    lengths = np.sqrt(np.bincount(owners, weights=values * values))
    return SparseTexts(owners, keys & ((1 << bits) - 1), (values / lengths[owners]).astype(np.float32))


def _powers(base: np.uint64, count: int) -> NDArray[np.uint64]:
    factors = np.full(count, base, dtype=np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


def _kinds() -> NDArray[np.uint8]:
    """What each character of the basic plane is; one entry more stands for all beyond."""
    kinds = np.full(_PLANE + 1, _SYMBOL, dtype=np.uint8)
    for code in range(_PLANE):
        char = chr(code)
        if char.isalnum() or char == "_":
            kinds[code] = _WORD
        elif char.isspace():
            kinds[code] = _SPACE
    return kinds
