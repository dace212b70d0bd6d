"""The readings of a text that was disguised: encodings taken off layer by layer, then odd spellings read.

Pure; called by `normalizing.py`. Bounded: three layers, and a text never grows by being read.
"""

from collections.abc import Iterable, Iterator

from services.guardrail.reading.edits import Edit, Edits
from services.guardrail.reading.encodings import encoding_edits
from services.guardrail.reading.escapes import escape_edits
from services.guardrail.reading.homoglyphs import homoglyph_edits
from services.guardrail.reading.rot13 import rot13_edits
from services.guardrail.reading.spelling import spelling_edits

MAX_LAYERS = 3


def decoded(text: str) -> Edits | None:
    """One layer of look-alikes, escapes and encoded runs taken off; None where there is none."""
    edits = _apart((*homoglyph_edits(text), *escape_edits(text), *encoding_edits(text)))
    return Edits(text, edits) if edits else None


def moved(text: str) -> Edits | None:
    """Letters moved back by thirteen places where that reads as English; None where it does nowhere."""
    edits = _apart(rot13_edits(text))
    return Edits(text, edits) if edits else None


def spelled(text: str) -> Edits | None:
    """Odd spellings read as words; None where there are none."""
    edits = _apart(spelling_edits(text))
    return Edits(text, edits) if edits else None


def _apart(edits: Iterable[Edit]) -> list[Edit]:
    """In order, without overlaps: of those that begin at one place the longest, and it hides what it covers."""
    return list(_uncovered(sorted(edits, key=lambda edit: (edit.span.start, -edit.span.end))))


def _uncovered(edits: Iterable[Edit]) -> Iterator[Edit]:
    end = 0
    for edit in edits:
        if edit.span.start >= end:
            end = edit.span.end
            yield edit
