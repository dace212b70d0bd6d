"""Normalises a text before it is judged, and leads every place found there back to the original text.

Pure; the first step of a check: NFKC, zero-width and other invisible characters dropped, tag characters read.
"""

import unicodedata
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise

from servicekit.domain.verdict import Span

NORMALIZING_VERSION = "nfkc-1"

_TAG_FIRST, _TAG_LAST, _TAG_OFFSET = 0xE0020, 0xE007E, 0xE0000
_INVISIBLE = frozenset(
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
    "\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\ufe00\ufe01\ufe02\ufe03\ufe04\ufe05\ufe06\ufe07\ufe08"
    "\ufe09\ufe0a\ufe0b\ufe0c\ufe0d\ufe0e\ufe0f\ufeff\U000e0001\U000e007f"
)


@dataclass(frozen=True, slots=True)
class NormalizedText:
    """The text as judged, and where its characters came from.

    `starts[i]` and `ends[i]` enclose, in the original, what became `text[i]`; both never decrease. They are empty
    where nothing changed.
    """

    original: str
    text: str
    starts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()

    @property
    def views(self) -> tuple["NormalizedText", ...]:
        """This text first, then further readings of the same original, only where they differ."""
        return (self,)

    def to_original(self, span: Span) -> Span:
        """The piece of the original that became `text[span.start:span.end]`."""
        if not self.starts:
            return span
        if span.start >= span.end:
            place = self.starts[span.start] if span.start < len(self.starts) else len(self.original)
            return Span(place, place)
        return Span(self.starts[span.start], self.ends[span.end - 1])

    def from_original(self, span: Span) -> Span:
        """What a piece of the original became; empty where all of it was dropped."""
        if not self.starts:
            return span
        start = bisect_left(self.starts, span.start)
        return Span(start, max(start, bisect_left(self.starts, span.end)))

    def hidden_runs(self, *, at_least: int) -> tuple[Span, ...]:
        """Runs of tag characters in the original: text that no reader sees and a model reads."""
        places = [index for index, char in enumerate(self.original) if _is_tag(char)]
        return tuple(run for run in _runs(places) if run.end - run.start >= at_least)


def normalize(original: str) -> NormalizedText:
    """NFKC by clusters (a character and its combining marks), invisible characters dropped, tags as ASCII."""
    if original.isascii():
        return NormalizedText(original, original)
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for start, end in _clusters(original):
        piece = _readable(original[start:end])
        pieces.append(piece)
        starts.extend([start] * len(piece))
        ends.extend([end] * len(piece))
    text = "".join(pieces)
    if text == original:
        return NormalizedText(original, original)
    return NormalizedText(original, text, tuple(starts), tuple(ends))


def _clusters(text: str) -> list[tuple[int, int]]:
    starts = [i for i, char in enumerate(text) if i == 0 or char.isascii() or not unicodedata.combining(char)]
    return list(pairwise([*starts, len(text)]))


def _readable(cluster: str) -> str:
    if cluster.isascii():
        return cluster
    shown = "".join(
        chr(ord(char) - _TAG_OFFSET) if _is_tag(char) else char for char in cluster if char not in _INVISIBLE
    )
    return unicodedata.normalize("NFKC", shown)


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
