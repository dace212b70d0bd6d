"""Finds the citation markers of an answer and the chunks they point to.

Pure; called by `generating.py` on the whole answer. Takes time in proportion to the answer's length.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from servicekit.domain.chunk import Citation
from servicekit.domain.prompt import ContextChunk

MAX_CITATIONS = 1_000
# A longer range is no citation but a stretch of years or pages.
_MAX_RANGE = 16

_NUMBER = r"\d{1,4}(?!\d)"
_DASH = r"[-\u2010-\u2015\u2212~\uff5e]"
_ITEM = rf"{_NUMBER}(?:\s*+{_DASH}\s*+{_NUMBER})?"
_SEPARATOR = r"\s*+(?:[,;&\uff0c\u3001\uff1b]|and\b)\s*+"
_MARKER = re.compile(
    rf"[\[\uff3b\u3010]\s*+(?:[#^]|(?:documents?|docs?|sources?)[\s:#]*+)?({_ITEM}(?:{_SEPARATOR}{_ITEM})*+)"
    r"\s*+(?:\u2020[^\[\]\uff3b\uff3d\u3010\u3011\n]{0,64})?[\]\uff3d\u3011]",
    re.IGNORECASE,
)
_RANGE = re.compile(rf"(\d+)(?:\s*+{_DASH}\s*+(\d+))?")
_CODE_MARK = re.compile(r"`+|^[ ]{0,3}~{3,}|\n", re.MULTILINE)
_FENCE_CHARS = 3


@dataclass(frozen=True, slots=True)
class Citations:
    """Resolved markers in order of appearance, and those that name no chunk, each once."""

    resolved: tuple[Citation, ...]
    invalid: tuple[str, ...]


def find_citations(answer: str, context: Sequence[ContextChunk]) -> Citations:
    """Resolve `[1]`, `[1, 2]`, `[1][2]`, `[1-3]`, `[Document 1]`, `【1】` and `【1†source】`.

    A marker of several numbers gives one citation for each, all with the marker's span. Those that name a chunk are
    resolved even where others do not; the marker is then invalid too. Markers in Markdown code are text. A bracket
    right behind a word is a marker only if it names chunks alone: `six[1]` cites, `items[0]` is an index, and so is
    what follows it in `items[0][1]`. After the first 1,000 citations no further ones are looked for.
    """
    chunks = {item.number: item.scored.chunk for item in context}
    resolved: list[Citation] = []
    invalid: dict[str, None] = {}
    index_end = -1
    for match in _markers(answer):
        numbers, complete = _numbers(match[1], chunks)
        start, end = match.span()
        if start == index_end or (not complete and _stands_behind_a_word(answer, start)):
            index_end = end
            continue
        if not complete:
            invalid[match[0]] = None
        resolved.extend(Citation(match[0], start, end, chunks[number]) for number in numbers)
        if len(resolved) >= MAX_CITATIONS:
            break
    return Citations(tuple(resolved[:MAX_CITATIONS]), tuple(invalid))


def _markers(answer: str) -> Iterator[re.Match[str]]:
    """The markers outside of code."""
    code = _code_spans(answer) if "`" in answer or "~~~" in answer else iter(())
    span = next(code, None)
    for match in _MARKER.finditer(answer):
        while span is not None and span[1] <= match.start():
            span = next(code, None)
        inside = span is not None and span[0] <= match.start()
        image = answer[match.end() : match.end() + 1] == "(" and answer[max(0, match.start() - 1)] == "!"
        if not inside and not image:
            yield match


def _numbers(listed: str, chunks: Collection[int]) -> tuple[list[int], bool]:
    """The numbers of a marker that name chunks, each once, and whether that is all of them."""
    named: dict[int, None] = {}
    complete = True
    for match in _RANGE.finditer(listed):
        first, last = int(match[1]), int(match[2] or match[1])
        if not 0 <= last - first < _MAX_RANGE:
            complete = False
            continue
        for number in range(first, last + 1):
            if number in chunks:
                named[number] = None
            else:
                complete = False
    return list(named), complete


def _stands_behind_a_word(answer: str, start: int) -> bool:
    return start > 0 and (answer[start - 1].isalnum() or answer[start - 1] in "_)")


def _code_spans(answer: str) -> Iterator[tuple[int, int]]:
    """Where Markdown code stands, in order: fenced blocks, an open one to the end, and code within a line."""
    marks = list(_CODE_MARK.finditer(answer))
    place = 0
    while place < len(marks):
        mark = marks[place][0].lstrip(" ")
        close = None
        if len(mark) >= _FENCE_CHARS:
            close = _closing(marks, place, mark)
            if close is None:
                yield marks[place].start(), len(answer)
                return
        elif mark != "\n":
            close = _closing_in_line(marks, place, mark)
        if close is not None:
            yield marks[place].start(), marks[close].end()
            place = close
        place += 1


def _closing(marks: Sequence[re.Match[str]], place: int, mark: str) -> int | None:
    """The next mark that is at least as long."""
    after = range(place + 1, len(marks))
    return next((other for other in after if marks[other][0].lstrip(" ").startswith(mark)), None)


def _closing_in_line(marks: Sequence[re.Match[str]], place: int, mark: str) -> int | None:
    """The next mark of the same length before the line ends."""
    for other in range(place + 1, len(marks)):
        if marks[other][0] == "\n":
            return None
        if marks[other][0] == mark:
            return other
    return None
