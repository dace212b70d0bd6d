"""Cuts a text into sentences to be judged one by one: lines and sentences, never too long and never too many.

Pure; used by the detectors that judge sentences and by their training.
"""

import re
from collections.abc import Iterable, Iterator

from servicekit.domain.sentences import split_sentences
from servicekit.domain.verdict import Span

MAX_PIECES = 1_000
"""Of one text: where there are more, neighbours are judged together."""

LONGEST_CHARS = 600
# A line that goes on in lower case, or with a comma, belongs to the one before it. One alternative a place: linear.
_LINE_END = re.compile(r"\n(?=[^a-z,;)\n])|\n\n")


def pieces(text: str) -> tuple[Span, ...]:
    """Places of the sentences, in order and apart: at most 1,000, each of at most 600 characters unless they are more.

    A line that begins anew (a heading, an item, a new sentence) ends the sentence before it.
    """
    found = [Span(cut.start, cut.end) for line in _lines(text) for cut in _sentences(text, line)]
    shortest = -(-len(text) // MAX_PIECES) if len(found) > MAX_PIECES else 0
    return tuple(_joined(found, shortest=shortest)) if shortest else tuple(found)


def _lines(text: str) -> Iterator[Span]:
    start = 0
    for end in _LINE_END.finditer(text):
        yield Span(start, end.start())
        start = end.end()
    yield Span(start, len(text))


def _sentences(text: str, line: Span) -> Iterator[Span]:
    for sentence in split_sentences(text[line.start : line.end]):
        yield from _cut(text, Span(line.start + sentence.start, line.start + sentence.end))


def _cut(text: str, span: Span) -> Iterator[Span]:
    """Of a sentence that is too long, parts that end before a blank where there is one in their second half."""
    start = span.start
    while span.end - start > LONGEST_CHARS:
        blank = text.rfind(" ", start + LONGEST_CHARS // 2, start + LONGEST_CHARS)
        end = blank if blank > 0 else start + LONGEST_CHARS
        yield Span(start, end)
        start = end + (blank > 0)
    yield Span(start, span.end)


def _joined(found: Iterable[Span], *, shortest: int) -> Iterator[Span]:
    """Neighbours together until they reach `shortest` characters."""
    start = end = None
    for span in found:
        start, end = span.start if start is None else start, span.end
        if end - start >= shortest:
            yield Span(start, end)
            start = None
    if start is not None and end is not None:
        yield Span(start, end)
