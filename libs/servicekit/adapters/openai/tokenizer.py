"""A tokenizer for models whose own is not here: counts rather too many tokens than too few.

Used by `embedder.py` where its URL names no `tokenizer=` file. Byte-pair tokenizers, trained on the web, make of an
English word 1.3 tokens on average, and of two Cyrillic letters or one Chinese character about one. Here a run of
letters or digits counts a token for every four UTF-8 bytes begun, and anything else but white space one for each
character: a chunk that fits by this count fits the model, though it may leave some of its window unused.
"""

import re
from collections.abc import Iterator, Sequence

_PIECE = re.compile(r"[^\W_]+|[^\w\s]|_")
_BYTES_PER_TOKEN = 4


class EstimatingTokenizer:
    """Cuts pieces of a few bytes; safe from any thread."""

    def count(self, text: str) -> int:
        """Tokens of `text`, an estimate from above."""
        return sum(1 for _ in _pieces(text))

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """Character range of each estimated token in order."""
        return list(_pieces(text))


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    for match in _PIECE.finditer(text):
        start, end = match.span()
        begin, used = start, 0
        for place in range(start, end):
            size = _utf8_bytes(text[place])
            if used and used + size > _BYTES_PER_TOKEN:
                yield begin, place
                begin, used = place, 0
            used += size
        yield begin, end


def _utf8_bytes(character: str) -> int:
    return len(character.encode("utf-8", "replace"))
