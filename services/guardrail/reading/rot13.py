"""English whose letters were moved by thirteen places, read. Pure; used by `disguises.py`."""

import codecs
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from servicekit.domain.verdict import Span
from services.guardrail.reading.edits import Edit
from services.guardrail.reading.letter_pairs import COSTS, LETTERS, codes

_LETTER_COUNT = 26
_MOVED = np.array([0, *((place + 12) % _LETTER_COUNT + 1 for place in range(1, len(LETTERS)))])
_GAINS = COSTS - COSTS[np.ix_(_MOVED, _MOVED)]
"""Bits that a pair of letters becomes more probable by when both are moved."""
_LEAST_GAIN = 36.0
"""Bits by which the piece must read more like English: about four words. Prose and code reach 20 by chance."""
_MOST_BITS = 5.0
"""Bits per letter that the piece may take once moved: English takes 3 to 4.5, letters at random more than 6."""
_FEWEST_LETTERS = 6
"""Different ones: `yyyyyyyy` is no order."""


def rot13_edits(text: str) -> Iterator[Edit]:
    """The pieces that read much more like English when moved, each where its gain is highest (Kadane's scan)."""
    places = codes(f" {text} ")
    gains = _GAINS[places[:-1], places[1:]]
    total = np.cumsum(gains, dtype=np.float64)
    lowest = np.minimum.accumulate(np.concatenate(([0.0], total[:-1])))
    if float((total - lowest).max()) < _LEAST_GAIN:
        return
    for span in _richest(gains):
        piece = Span(span.start, min(span.end, len(text)))
        moved = _MOVED[places[piece.start : piece.end + 1]]
        cost = float(COSTS[moved[:-1], moved[1:]].mean())
        if cost <= _MOST_BITS and len(set(text[piece.start : piece.end].lower())) >= _FEWEST_LETTERS:
            yield Edit(piece, codecs.encode(text[piece.start : piece.end], "rot13"), exact=True)


def _richest(gains: NDArray[np.float32]) -> Iterator[Span]:
    """Stretches of pairs whose gains add up to enough, from the left."""
    start = peak_at = 0
    sum_bits = peak = 0.0
    for place, gain in enumerate(gains.tolist()):
        sum_bits += gain
        if sum_bits > peak:
            peak, peak_at = sum_bits, place
        elif sum_bits <= 0.0 or peak - sum_bits >= _LEAST_GAIN:
            if peak >= _LEAST_GAIN:
                yield Span(start, peak_at + 1)
            start, sum_bits, peak = place + 1, 0.0, 0.0
    if peak >= _LEAST_GAIN:
        yield Span(start, peak_at + 1)
