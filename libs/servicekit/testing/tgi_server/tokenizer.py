"""The contract server's tokenizer: words, marks and blank space, whose pieces joined are the text.

Pure; used for `/tokenize`, for the limits, and to cut the answer into tokens.
"""

import re
import zlib
from dataclasses import dataclass

_PIECE = re.compile(r"\s?\w+|\s?[^\w\s]|\s+")
_LOWEST_LOGPROB = 4.0


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
        Piece(token_id(match.group()), match.group(), match.start(), match.end()) for match in _PIECE.finditer(text)
    ]


def split(text: str) -> list[str]:
    """The texts of the tokens alone, which is quicker."""
    return _PIECE.findall(text)


def token_id(text: str) -> int:
    """A token's number."""
    return zlib.crc32(text.encode()) % 50_000


def logprob(text: str) -> float:
    """How likely a token is, always the same for the same text: -4 to just below 0."""
    return -round(0.0001 + zlib.crc32(text.encode()[::-1]) % 10_000 / 10_000 * (_LOWEST_LOGPROB - 0.001), 4)
