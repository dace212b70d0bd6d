"""Normalises a text before it is judged, and leads every place found there back to the original text.

Pure; the first step of a check: NFKC, zero-width and other invisible characters dropped, tag characters read. Further
views of a text, without its disguises, are made by `reading/disguises.py` where they are asked for.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from servicekit.domain.verdict import Span
from services.guardrail.reading.disguises import MAX_LAYERS, decoded, moved, spelled
from services.guardrail.reading.edits import Edit, Edits

NORMALIZING_VERSION = "nfkc-1+readings-1"

# Some ligatures stand for a whole sentence: a text of nothing else would become eighteen times as long.
_MOST_FOR_ONE = 6
_TAG_FIRST, _TAG_LAST, _TAG_OFFSET = 0xE0020, 0xE007E, 0xE0000
_INVISIBLE = frozenset(
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
    "\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\ufe00\ufe01\ufe02\ufe03\ufe04\ufe05\ufe06\ufe07\ufe08"
    "\ufe09\ufe0a\ufe0b\ufe0c\ufe0d\ufe0e\ufe0f\ufeff\U000e0001\U000e007f"
)
# One class of characters: linear.
_DROPPED = re.compile("[" + "".join(sorted(_INVISIBLE)) + f"{chr(_TAG_FIRST)}-{chr(_TAG_LAST)}]")


@dataclass(frozen=True)
class NormalizedText:
    """The text as judged, and where its characters came from.

    `layers` are the edits that led from the original to the text, the first first; none where nothing changed.
    """

    original: str
    text: str
    layers: tuple[Edits, ...] = ()

    @cached_property
    def views(self) -> tuple["NormalizedText", ...]:
        """This text first, then decoded, then with moved letters, then spelled as words: each only where it differs.

        At most four; each is made from the one in front of it.
        """
        views = [self]
        if (plain := self.without_layers(MAX_LAYERS)).text != self.text:
            views.append(plain)
        if (letters := moved(plain.text)) is not None:
            views.append(plain.changed(letters).without_layers(MAX_LAYERS - 1))
        if (words := spelled(views[-1].text)) is not None:
            views.append(views[-1].changed(words))
        return tuple(views)

    def without_layers(self, at_most: int) -> "NormalizedText":
        """The text with so many layers taken off, or as many as there are."""
        view = self
        for _ in range(at_most):
            edits = decoded(view.text)
            if edits is None:
                break
            view = view.changed(edits)
            if (normal := _normal_form(view.text)) is not None:
                view = view.changed(normal)
        return view

    def changed(self, edits: Edits) -> "NormalizedText":
        """What these edits of the text make of it."""
        return NormalizedText(self.original, edits.text, (*self.layers, edits))

    def to_original(self, span: Span) -> Span:
        """The piece of the original that became `text[span.start:span.end]`."""
        for edits in reversed(self.layers):
            span = edits.to_before(span)
        return span

    def from_original(self, span: Span) -> Span:
        """What a piece of the original became; empty where all of it was dropped."""
        for edits in self.layers:
            span = edits.to_after(span)
        return span

    def hidden_runs(self, *, at_least: int) -> tuple[Span, ...]:
        """Runs of tag characters in the original: text that no reader sees and a model reads."""
        if self.original.isascii():
            return ()
        places = [index for index, char in enumerate(self.original) if _is_tag(char)]
        return tuple(run for run in _runs(places) if run.end - run.start >= at_least)


def normalize(original: str) -> NormalizedText:
    """NFKC by clusters (a character and its combining marks), invisible characters dropped, tags as ASCII."""
    plain = NormalizedText(original, original)
    edits = _normal_form(original)
    return plain if edits is None else plain.changed(edits)


def _normal_form(text: str) -> Edits | None:
    """The clusters that are not in their normal form; None where all are."""
    if text.isascii() or (unicodedata.is_normalized("NFKC", text) and not _DROPPED.search(text)):
        return None
    changed = [
        Edit(Span(start, end), shown)
        for start, end in _clusters(text)
        if (shown := _readable(piece := text[start:end])) != piece
    ]
    return Edits(text, changed) if changed else None


def _clusters(text: str) -> list[tuple[int, int]]:
    starts = [i for i, char in enumerate(text) if i == 0 or char.isascii() or not unicodedata.combining(char)]
    return list(pairwise([*starts, len(text)]))


def _readable(cluster: str) -> str:
    if cluster.isascii():
        return cluster
    shown = "".join(
        chr(ord(char) - _TAG_OFFSET) if _is_tag(char) else char for char in cluster if char not in _INVISIBLE
    )
    normal = unicodedata.normalize("NFKC", shown)
    return shown if len(normal) > _MOST_FOR_ONE * len(shown) else normal


def _is_tag(char: str) -> bool:
    return _TAG_FIRST <= ord(char) <= _TAG_LAST


def _runs(places: list[int]) -> list[Span]:
    runs: list[Span] = []
    for place in places:
        if runs and runs[-1].end == place:
            runs[-1] = Span(runs[-1].start, place + 1)
        else:
            runs.append(Span(place, place + 1))
    return runs
