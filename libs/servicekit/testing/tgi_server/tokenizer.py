"""The contract server's tokenizer: words, marks and blank space, whose pieces joined are the text.

Pure; used for `/tokenize`, for the limits, and to cut the answer into tokens.
"""

import re
import zlib
from dataclasses import dataclass

_PIECE = re.compile(r"\s?\w+|\s?[^\w\s]|\s+")


@dataclass(frozen=True, slots=True)
class Piece:
    """One token: its id, and its characters `start` to `stop`."""

    id: int
    text: str
    start: int
    stop: int


def tokenize(text: str) -> list[Piece]:
    """The tokens in order; joined, their texts are `text`."""
    return [
        Piece(zlib.crc32(match.group().encode()) % 50_000, match.group(), match.start(), match.end())
        for match in _PIECE.finditer(text)
    ]
