"""How much a text reads like English, by which letter follows which. Pure; used by `rot13.py` and `spelling.py`."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

LETTERS = " abcdefghijklmnopqrstuvwxyz"
"""A blank stands for everything that is no letter."""
WORST = 15
"""-log2 of the least probable pair, cut off."""

# -log2 of the probability of the second letter (column) behind the first (row), in the order of `LETTERS`; made by
# `python -m services.guardrail.training.letter_pairs`.
_TABLE = (
    "245456565478656459643783c6a",
    "49755a869596443b6b33375794a",
    "4369a27b845b4ab3bb468499b4b",
    "43b5a3bb35d45db2ab5644dbd7d",
    "14ab73a793dd89948d66a698d6b",
    "14754688a7da56386a34597777b",
    "15a9c45cc3cc5cc3ac3866ccc9c",
    "249c92c644cc5863cc4485ccc8c",
    "43dd91cdd4d9a982ba7b67dbd8d",
    "65744555cab845247e53495e8e7",
    "539992967679997299997299979",
    "24a9a28982a97a56aa84a78aa6a",
    "22894379b3d836d48db5668ad4b",
    "3258c2bca4ccb6a34c97869cc6c",
    "14854483c5a68975cbc4378ce5a",
    "3786553797b754356c355365a8a",
    "439983c953cc2aa45c3654c8c7c",
    "686888858588888888888088888",
    "24855296a3d656648d64568bd4c",
    "15b6a4ab54d788946aa535b9d8d",
    "2488c3b924ce78a4ae566698e6c",
    "365574a6a6c755394c233c9ca8a",
    "54bb91b9b2bbbb848b98b8bbb7b",
    "43bbb4bd14db6b64dd68abd9dbd",
    "246584888368888636883888848",
    "1688949ac8ac75736c748ccaccc",
    "338882885488885488886588565",
)
_CODES = np.zeros(128, dtype=np.intp)
for _place, _letter in enumerate(LETTERS):
    _CODES[[ord(_letter), ord(_letter.upper())]] = _place
COSTS: NDArray[np.float32] = np.array([[int(digit, 16) for digit in row] for row in _TABLE], dtype=np.float32)
"""Bits by letter and next letter."""
_BITS = {(one, other): int(_TABLE[i][j], 16) for i, one in enumerate(LETTERS) for j, other in enumerate(LETTERS)}


def codes(text: str) -> NDArray[np.intp]:
    """Each character's place in `LETTERS`; 0 for what is no ASCII letter."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return _CODES[np.where(points < _CODES.size, points, 0)]


def bits_per_letter(word: str) -> float:
    """How surprising a word of ASCII letters is in English, by letter: 3 to 4.5 for words, above 6 at random."""
    bits = [_BITS[pair] for pair in pairwise(f" {word.lower()} ")]
    return sum(bits) / len(bits)
