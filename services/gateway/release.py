"""Holds streamed text back to the ends of sentences, and finds markers again in text that was redacted.

Pure; fed by `generating.py`. Whatever is fed, the pieces taken and the rest, joined, are the text.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from servicekit.domain.sentences import split_sentences
from servicekit.domain.verdict import Span
from services.gateway.backends import AnswerCitation

MAX_HELD_CHARS = 1_000
MAX_PIECE_CHARS = 16_384
_MAY_END = re.compile(r"[^\w\s,'()-]|\n")
_BLANK = re.compile(r"\s")


class HoldBack:
    """Text that has arrived and was not taken yet.

    A sentence is complete when the next one has begun, so that no piece ends inside a word or abbreviation.
    One longer than `max_held_chars` is cut at its last blank, so that neither memory nor waiting grows.
    """

    def __init__(self, *, max_held_chars: int = MAX_HELD_CHARS) -> None:
        self._max_held_chars = max_held_chars
        self._held = ""
        self._complete = 0

    @property
    def ready(self) -> bool:
        """Whether `take` would give text."""
        return self._complete > 0

    @property
    def held(self) -> str:
        """All that has arrived and was not taken."""
        return self._held

    def feed(self, text: str) -> None:
        """Add text as it arrives."""
        self._held += text
        tail = self._held[self._complete :]
        if len(tail) > self._max_held_chars or _MAY_END.search(tail):
            self._complete += _cut(tail, self._max_held_chars)

    def take(self) -> str:
        """The complete sentences, at most MAX_PIECE_CHARS of them; empty if there are none."""
        piece = self._held[: min(self._complete, MAX_PIECE_CHARS)]
        self._held = self._held[len(piece) :]
        self._complete -= len(piece)
        return piece

    def take_rest(self) -> str:
        """What is left once no more will arrive, at most MAX_PIECE_CHARS a call."""
        self._complete = len(self._held)
        return self.take()


def _cut(tail: str, max_held_chars: int) -> int:
    """How many characters of `tail` may go: all sentences but the last, which may still grow."""
    sentences = split_sentences(tail)
    cut = sentences[-1].start if sentences else 0
    if len(tail) - cut > max_held_chars:
        cut = max(cut, max((match.end() for match in _BLANK.finditer(tail)), default=0))
    return cut if len(tail) - cut <= max_held_chars else len(tail)


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer as it was generated and as it was released."""

    source: str
    released: str


def relocate(citations: Iterable[AnswerCitation], pieces: Sequence[Piece]) -> tuple[AnswerCitation, ...]:
    """Citations with their spans moved from generated to released text; those redacted away are dropped.

    Within a piece that was changed, the n-th occurrence of a marker stays the n-th.
    """
    if all(piece.source == piece.released for piece in pieces):
        return tuple(citations)
    moved = (_moved(citation, pieces) for citation in citations)
    return tuple(citation for citation in moved if citation is not None)


def _moved(citation: AnswerCitation, pieces: Sequence[Piece]) -> AnswerCitation | None:
    source_start = released_start = 0
    for piece in pieces:
        offset = citation.span.start - source_start
        if offset < len(piece.source):
            place = offset if piece.source == piece.released else _same_occurrence(citation.marker, offset, piece)
            if place is None:
                return None
            start = released_start + place
            return replace(citation, span=Span(start, start + len(citation.marker)))
        source_start += len(piece.source)
        released_start += len(piece.released)
    return None


def _same_occurrence(marker: str, offset: int, piece: Piece) -> int | None:
    before = piece.source[:offset].count(marker)
    position = -1
    for _ in range(before + 1):
        position = piece.released.find(marker, position + 1)
        if position < 0:
            return None
    return position
