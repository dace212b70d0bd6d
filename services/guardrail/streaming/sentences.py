"""Collects released text into sentences, for detectors that read for meaning.

Pure; fed by `stream.py`. Whatever is fed, the sentences taken and the rest, joined, are the text.
"""

import re
from dataclasses import dataclass, field

from servicekit.domain.sentences import split_sentences

LONGEST_CHARS = 1_000
# One class of characters: linear.
_MAY_END = re.compile(r"[^\w\s,'()-]|\n")
_BLANK = re.compile(r"\s")


@dataclass(frozen=True, slots=True)
class Sentences:
    """One or more whole sentences, and the place of their first character in all the text."""

    text: str = field(repr=False)
    offset: int


class SentenceInbox:
    """Text that has come and was not taken yet.

    A sentence is whole when the next one has begun, so that none ends inside a word or abbreviation. One that is too
    long is cut at its last blank, so that neither memory nor time grows.
    """

    def __init__(self) -> None:
        self._text = ""
        self._offset = 0
        self._whole = 0

    def add(self, text: str) -> None:
        """Text has come."""
        self._text += text
        tail = self._text[self._whole :]
        if len(tail) > LONGEST_CHARS or _MAY_END.search(tail):
            self._whole += _cut(tail)

    def take(self, *, final: bool) -> Sentences | None:
        """The whole sentences; all there is where nothing will follow."""
        end = len(self._text) if final else self._whole
        if end == 0:
            return None
        taken = Sentences(self._text[:end], self._offset)
        self._text = self._text[end:]
        self._offset += end
        self._whole = 0
        return taken


def _cut(tail: str) -> int:
    """How many characters of `tail` are whole sentences: all but the last one, which may still grow."""
    sentences = split_sentences(tail)
    cut = sentences[-1].start if sentences else 0
    if len(tail) - cut > LONGEST_CHARS:
        cut = max(cut, max((match.end() for match in _BLANK.finditer(tail)), default=0))
    return cut if len(tail) - cut <= LONGEST_CHARS else len(tail)
