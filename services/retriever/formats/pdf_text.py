"""Reads PDF with PDFium: the text of each page, under the outline's headings or the page's number.

Pure; run by `parse_worker.py`, because a file can be made to need any amount of memory and time. See `parsing.py`.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import pypdfium2 as pdfium

from servicekit.errors import InvalidRequest
from services.retriever.formats.parsing import MAX_TEXT_CHARS, Block, BlockKind, HeadingPath, ParsedDocument, clean

_MAX_PAGES = 10_000
_MAX_OUTLINE = 5_000
_MAX_OUTLINE_DEPTH = 6
# A line at the edge of a page that stands on so many pages is a running header or footer.
_MIN_REPEATS = 3
_EDGE_LINES = 2
_LISTING = re.compile(r"\s*(?:[-*+•‣◦–]|\d{1,3}[.)]|\([a-z0-9]{1,3}\))\s")  # noqa: RUF001  # bullets and dashes
_SENTENCE_END = re.compile(r"[.!?:;]['\")\]”’]?\s*$")  # noqa: RUF001  # closing quotes
# PDFium's mark of a word that is hyphenated at the end of a line.
_HYPHENATED = re.compile("[\x02\ufffe]\\s*")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
_SHORT_LINE = 0.8


def parse_pdf(content: bytes) -> ParsedDocument:
    """Paragraphs and lists as far as line lengths tell; running headers and footers are left out.

    Raises:
        InvalidRequest: it is damaged, needs a password, has too many pages, or holds no text (only images).
    """
    try:
        document = pdfium.PdfDocument(content)
    except pdfium.PdfiumError as exc:
        if "password" in str(exc).lower() or "security" in str(exc).lower():
            raise _refusal("needs a password: save it without one", "ENCRYPTED") from exc
        raise _refusal(f"is no PDF, or a damaged one ({exc}): save it anew", "MALFORMED_PDF") from exc
    if len(document) > _MAX_PAGES:
        raise _refusal(f"has {len(document)} pages, {_MAX_PAGES} are the bound: split it", "PARSE_LIMIT")
    pages = _without_running_lines([_lines(document, number) for number in range(len(document))])
    if not any(pages):
        raise _refusal("holds no text, only images: recognise its text (OCR) first", "NO_TEXT_LAYER")
    writer = _Writer()
    headings = _outline(document)
    path = HeadingPath()
    for number, lines in enumerate(pages):
        for level, title in headings.get(number, ()):
            path.enter(level, title)
        writer.write_page(lines, path.current if headings else (f"Page {number + 1}",))
    return ParsedDocument("".join(writer.parts), tuple(writer.blocks), title=_title(document))


def _lines(document: pdfium.PdfDocument, number: int) -> list[str]:
    try:
        page = document[number]
        text_page = page.get_textpage()
    except pdfium.PdfiumError:
        return []  # a page that is broken does not spoil the others
    text = clean(_HYPHENATED.sub("", text_page.get_text_bounded()))
    text_page.close()
    page.close()
    return [line for line in (_UNPRINTABLE.sub("", raw).rstrip() for raw in text.splitlines()) if line.strip()]


def _without_running_lines(pages: list[list[str]]) -> list[list[str]]:
    seen = Counter(key for lines in pages for key in {_running(line) for line in _edges(lines)})
    often = max(_MIN_REPEATS, len(pages) // 2)
    running = {key for key, count in seen.items() if count >= often}
    return [
        [
            line
            for place, line in enumerate(lines)
            if not (min(place, len(lines) - 1 - place) < _EDGE_LINES and _running(line) in running)
        ]
        for lines in pages
    ]


def _edges(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:_EDGE_LINES]
    yield from lines[max(_EDGE_LINES, len(lines) - _EDGE_LINES) :]


def _running(line: str) -> str:
    return re.sub(r"\d+", "#", " ".join(line.split()).lower())


def _outline(document: pdfium.PdfDocument) -> dict[int, list[tuple[int, str]]]:
    """By page, the headings that begin on it; empty where the file has no outline."""
    found: dict[int, list[tuple[int, str]]] = {}
    try:
        for place, mark in enumerate(document.get_toc(max_depth=_MAX_OUTLINE_DEPTH)):
            if place == _MAX_OUTLINE:
                break
            target, title = mark.get_dest(), clean(mark.get_title()).strip()
            index = target.get_index() if target is not None else None
            if title and index is not None:
                found.setdefault(index, []).append((mark.level + 1, title))
    except pdfium.PdfiumError:
        return {}
    return found


def _title(document: pdfium.PdfDocument) -> str:
    return " ".join(clean(document.get_metadata_value("Title")).split())[: HeadingPath.MAX_HEADING_CHARS]


class _Writer:
    """Collects the pages' text and the blocks in it."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.blocks: list[Block] = []
        self._length = 0

    def write_page(self, lines: Sequence[str], path: tuple[str, ...]) -> None:
        for paragraph in _paragraphs(lines):
            listed = sum(1 for line in paragraph if _LISTING.match(line))
            text = "\n".join(line.strip() for line in paragraph)
            if self.blocks:
                self._append("\n\n")
            start = self._length
            self._append(text)
            kind = BlockKind.LINES if 2 * listed > len(paragraph) else BlockKind.PROSE
            self.blocks.append(Block(start, self._length, kind, path))

    def _append(self, text: str) -> None:
        self.parts.append(text)
        self._length += len(text)
        if self._length > MAX_TEXT_CHARS:
            raise _refusal(f"has more than {MAX_TEXT_CHARS} characters of text: split it", "PARSE_LIMIT")


def _paragraphs(lines: Sequence[str]) -> Iterator[list[str]]:
    """Lines that belong together: one ends where a short line ends a sentence, and before an item of a list."""
    width = max((len(line) for line in lines), default=0)
    run: list[str] = []
    for line in lines:
        if run and _LISTING.match(line) and not _LISTING.match(run[0]):
            yield run
            run = []
        run.append(line)
        if len(line) < _SHORT_LINE * width and _SENTENCE_END.search(line) and not _LISTING.match(run[0]):
            yield run
            run = []
    if run:
        yield run


def _refusal(problem: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"document.content {problem}", field="document.content", reason=reason)
