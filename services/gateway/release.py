"""Finds citation markers again in text that was redacted, or that values were put back into.

Pure; used by `generating.py`, `restoring.py` and `record.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from servicekit.domain.verdict import Span
from services.gateway.backends import AnswerCitation


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
