"""Plants instructions in documents, so that a model is judged on what it will meet: one sentence among others.

Pure; used by `training/topic_break.py` and by the quality bench.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from servicekit.domain.verdict import Span
from services.guardrail.pieces import pieces

_POSITIONS = 3
_SEED = 5


@dataclass(frozen=True, slots=True)
class Planted:
    """A document with an instruction put into it at `place`."""

    text: str
    place: Span


def planted(instructions: Sequence[str], documents: Sequence[str]) -> list[Planted]:
    """Each instruction in three documents, in turn: before it, after it, and between two of its sentences."""
    return [
        _put(text, documents[(_POSITIONS * number + position) % len(documents)], position)
        for number, text in enumerate(instructions)
        for position in range(_POSITIONS)
    ]


def drawn(documents: Sequence[str], *, count: int, fewest_sentences: int = 1) -> list[str]:
    """Some of the documents, the same ones each time, that have so many sentences."""
    fit = [text for text in documents if len(pieces(text)) >= fewest_sentences]
    if len(fit) <= count:
        return fit
    places = np.random.Generator(np.random.PCG64(_SEED)).choice(len(fit), count, replace=False)
    return [fit[int(place)] for place in sorted(places)]


def covers_half(cover: Span, span: Span) -> bool:
    """Whether half of `span` or more lies in `cover`."""
    return 2 * (min(cover.end, span.end) - max(cover.start, span.start)) >= span.end - span.start


def is_planted(case: Planted, piece: Span) -> bool:
    """Whether a piece of the document is the instruction, or most of it, or holds most of it."""
    return covers_half(case.place, piece) or covers_half(piece, case.place)


def _put(text: str, document: str, position: int) -> Planted:
    if position == 0:
        return Planted(f"{text}\n{document}", Span(0, len(text)))
    if position == 1:
        return Planted(f"{document}\n{text}", Span(len(document) + 1, len(document) + 1 + len(text)))
    places = pieces(document)
    middle = places[len(places) // 2].start
    return Planted(f"{document[:middle]}{text} {document[middle:]}", Span(middle, middle + len(text)))
