"""Reads HTML into the text that it shows, with its headings. Pure; see `parsing.py`."""

import re
from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

from servicekit.errors import InvalidRequest
from services.retriever.formats.parsing import Block, BlockKind, HeadingPath, ParsedDocument

# The parser's time grows with the square of the depth.
MAX_DEPTH = 500
_HIDDEN = {"script", "style", "noscript", "template", "head", "svg", "iframe", "object", "math", "canvas"}
_HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
_LINEWISE = {"pre", "ul", "ol", "dl", "table", "blockquote"}
_BLOCK_NAMES = """address article aside body caption dd details dialog div dt fieldset figcaption figure footer
form header hgroup hr html legend li main nav option optgroup p search section summary tbody td tfoot th thead tr"""
_VOID_NAMES = "area base br col embed hr img input link meta source track wbr"
_AUTO_CLOSED_NAMES = "p li dt dd tr td th thead tbody tfoot option optgroup colgroup caption html body"
_BLOCKS = frozenset(_BLOCK_NAMES.split())
# Elements that never make the tree deeper, because they hold nothing or end where their sibling begins.
_SHALLOW = frozenset((_VOID_NAMES + " " + _AUTO_CLOSED_NAMES).split())
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]*)[^<>]*?(/?)>")


def parse_html(source: str) -> ParsedDocument:
    """The visible text: paragraphs parted by blank lines, list items and cells by line breaks.

    Raises:
        InvalidRequest: the markup is nested too deeply.
    """
    _check_depth(source)
    parser = LexborHTMLParser(source)
    writer = _TextWriter()
    if parser.body is not None:
        for step, node in _walk(parser.body):
            writer.step(step, node)
    writer.end_block()
    declared = parser.css_first("title")
    first = next((block for block in writer.blocks if block.kind is BlockKind.HEADING), None)
    title = " ".join(declared.text().split()) if declared is not None else ""
    if not title and first is not None and first.heading_path:
        title = first.heading_path[0]
    return ParsedDocument(writer.text, tuple(writer.blocks), title=title, link_chars=writer.link_chars)


class _TextWriter:
    """Collects text block by block; blank space is collapsed except in preformatted text."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.link_chars = 0
        self._parts: list[str] = []
        self._length = 0
        self._inline: list[str] = []
        self._headings = HeadingPath()
        self._heading = 0
        self._linewise = 0
        self._preformatted = 0
        self._links = 0

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def step(self, step: str, node: LexborNode) -> None:
        """Take one step of a walk: `enter` or `leave` an element, or a `text`."""
        tag = node.tag or ""
        if step == "text":
            text = node.text_content or ""
            self._inline.append(text)
            self.link_chars += len(text.strip()) if self._links else 0
        elif tag == "a":
            self._links += 1 if step == "enter" else -1
        elif tag == "br":
            self._inline.append("\n" if step == "enter" else "")
        elif tag in _HEADINGS or tag in _LINEWISE or tag in _BLOCKS:
            self.end_block()
            change = 1 if step == "enter" else -1
            self._heading = _HEADINGS[tag] if step == "enter" and tag in _HEADINGS else 0
            self._linewise += change if tag in _LINEWISE else 0
            self._preformatted += change if tag == "pre" else 0

    def end_block(self) -> None:
        """Close the block that is being collected."""
        raw, self._inline = "".join(self._inline), []
        text = raw.strip("\r\n").rstrip() if self._preformatted else " ".join(raw.split())
        if not text.strip():
            return
        joined = self.blocks and self._linewise and self.blocks[-1].kind is BlockKind.LINES
        if self.blocks:
            self._write("\n" if joined else "\n\n")
        start = self._length
        self._write(text)
        if self._heading:
            path = self._headings.enter(self._heading, text)
            self.blocks.append(Block(start, self._length, BlockKind.HEADING, path))
        else:
            kind = BlockKind.LINES if self._linewise else BlockKind.PROSE
            self.blocks.append(Block(start, self._length, kind, self._headings.current))

    def _write(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)


def _walk(root: LexborNode) -> Iterator[tuple[str, LexborNode]]:
    """Every visible node in document order, elements twice; no recursion, so that depth is no matter."""
    stack: list[tuple[str, LexborNode]] = [("enter", root)]
    while stack:
        step, node = stack.pop()
        if node.is_text_node:
            yield "text", node
            continue
        if step == "leave":
            yield step, node
            continue
        if not node.is_element_node or node.tag in _HIDDEN:
            continue
        yield step, node
        stack.append(("leave", node))
        stack.extend(("enter", child) for child in reversed(list(node.iter(include_text=True))))


def _check_depth(source: str) -> None:
    depth = 0
    for match in _TAG.finditer(source):
        closing, name, self_closing = match.group(1), match.group(2).lower(), match.group(3)
        if name in _SHALLOW or self_closing:
            continue
        depth = max(0, depth - 1) if closing else depth + 1
        if depth > MAX_DEPTH:
            raise InvalidRequest(
                f"document.content nests HTML elements deeper than {MAX_DEPTH}: close them, or extract the text",
                field="document.content",
                reason="HTML_TOO_DEEP",
            )
