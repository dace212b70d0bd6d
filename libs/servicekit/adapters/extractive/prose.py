"""Finds the sentences of a chunk that can be quoted: paragraphs unwrapped, code, tables and headings left out.

Pure; called by `selection.py`. Understands plain text, reStructuredText as pydoc prints it, and Markdown.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from servicekit.domain.sentences import STOP_WORDS, split_sentences

_UNDERLINE = re.compile(r"^\s*([*=\-~^#\"'`+])\1{2,}\s*$")
_MARKDOWN_HEADING = re.compile(r"^#{1,6}\s+(.*)$")
_SIGNATURE = re.compile(r"^(?:class |async |await |@|exception )?[A-Za-z_][\w.]*\(.*\)?(?:\s*->.*)?$")
_LIST_ITEM = re.compile(r"^(?:\d{1,2}[.)]|[-*•])\s+(?=\S)")
_FOOTNOTE = re.compile(r"^\[\d+\]\s|^-\[.*\]-$|^\.\.\s")
_LABEL = re.compile(r"^(?:Note|Warning|See also|Tip|Example|Examples|Availability):?$", re.IGNORECASE)
_ROLE = re.compile(r":[a-z:+]+:`([^`]*)`")
_BOLD = re.compile(r"(?<!\w)\*\*(\S(?:[^*]*\S)?)\*\*(?!\w)|^\*\*(?=[A-Z])")
_WRAPPED_HYPHEN = re.compile(r"(?<=[a-z])-\n(?=[a-z])(?!(?:and|or|to)\b)")
_MARKER = re.compile(r"\s?\[\d{1,3}(?:\s*,\s*\d{1,3})*\]")
_CODE = re.compile(r"::=|>>>|^\s*(?:def|class|import|from|return|print)\b[^.]*[(:=]|\w\s=\s\w|\{|\}|;$|==|\|\s")
_WORD = re.compile(r"[A-Za-z][\w'\u2019-]*")
_ENDS = re.compile(r"[.!?:\u2026][\"\u201d\u2019')\]*]*$")
_MIN_WORDS = 4
_MIN_STOP_WORD_SHARE = 0.16
_MAX_SYMBOL_SHARE = 0.14
_SYMBOLS = frozenset("=+*/<>[]{}|\\^~@#$%&_")


@dataclass(frozen=True, slots=True)
class ProseSentence:
    """A quotable sentence: its place in the chunk, its paragraph, and what stands above it.

    `heading` is the last heading above, `signature` that of the callable it describes; `leads` says that it is
    the first below them, `listed` that it opens an item of a list.
    """

    text: str
    position: int
    paragraph: int
    heading: str = ""
    signature: str = ""
    leads: bool = False
    listed: bool = False


@dataclass(slots=True)
class Context:
    """What stands above a line: the last heading, and the signature with its indent."""

    heading: str = ""
    signature: str = ""
    signature_indent: int = -1

    def leave_signature(self, indent: int) -> None:
        """A paragraph as far left as the signature is no longer about it."""
        if self.signature and indent <= self.signature_indent:
            self.signature, self.signature_indent = "", -1

    def enter_signature(self, line: str, indent: int) -> None:
        """What is indented deeper is about this callable."""
        self.signature, self.signature_indent = line, indent


@dataclass(frozen=True, slots=True)
class _Paragraph:
    text: str
    heading: str
    signature: str
    listed: bool


def read_prose(
    text: str, *, starts_inside: bool = False, above: str = "", heading: str = ""
) -> tuple[ProseSentence, ...]:
    """The quotable sentences in order.

    `starts_inside` says that the text may begin within a sentence; `above` is what stands before it in its
    document and `heading` the heading it stands under, where those are known: they hold on.
    """
    context = Context()
    if heading:
        _remember(heading, context)
    for _ in _paragraphs(above, context):
        pass
    found: list[ProseSentence] = []
    # What a cut text begins below is said above it, so that nothing leads there.
    last = (context.heading, context.signature) if starts_inside else None
    for number, paragraph in enumerate(_paragraphs(text, context)):
        if not _is_prose(paragraph.text):
            continue
        for place, sentence in enumerate(split_sentences(paragraph.text)):
            quotable = _MARKER.sub("", sentence.text).strip()
            if _is_fragment(quotable, opens=starts_inside and number == place == 0):
                continue
            below = (paragraph.heading, paragraph.signature)
            found.append(
                ProseSentence(
                    quotable,
                    len(found),
                    number,
                    *below,
                    leads=below != last,
                    listed=paragraph.listed and place == 0,
                )
            )
            last = below
    return tuple(found)


def _paragraphs(text: str, context: Context) -> Iterator[_Paragraph]:
    """Unwrapped paragraphs with what stands above each; `context` is carried on from line to line."""
    for block in _blocks(text.expandtabs()):
        lines = _without_heading(block, context)
        if not lines or _FOOTNOTE.match(lines[0].strip()) or _LABEL.match(lines[0].strip()):
            continue
        indent = _indent(lines)
        context.leave_signature(indent)
        for item in _items(_without_signature(lines, context, indent)):
            listed = bool(_LIST_ITEM.match(item[0]))
            unwrapped = _cleaned(_LIST_ITEM.sub("", _WRAPPED_HYPHEN.sub("-", "\n".join(item))))
            yield _Paragraph(unwrapped, context.heading, context.signature, listed)


def _indent(lines: list[str]) -> int:
    """Of the first line, or the second: a text cut out of another has lost the blanks of its first line."""
    return max(len(line) - len(line.lstrip()) for line in lines[:2])


def _blocks(text: str) -> Iterator[list[str]]:
    """Lines between blank lines."""
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.strip():
            block.append(line)
        elif block:
            yield block
            block = []


def _without_heading(block: list[str], context: Context) -> list[str]:
    """The block's lines after its heading, which is remembered."""
    markdown = _MARKDOWN_HEADING.match(block[0])
    if markdown:
        _remember(markdown[1].strip(), context)
        return block[1:]
    if len(block) > 1 and _UNDERLINE.match(block[1]) and not _UNDERLINE.match(block[0]):
        _remember(block[0].strip(), context)
        return block[2:]
    return [line for line in block if not _UNDERLINE.match(line)]


def _remember(heading: str, context: Context) -> None:
    context.heading = heading
    if _SIGNATURE.match(heading):
        context.enter_signature(heading, -1)
    else:
        context.signature, context.signature_indent = "", -1


def _without_signature(lines: list[str], context: Context, indent: int) -> list[str]:
    """The lines after the signatures that open the block; the first of them is remembered."""
    first = lines[0].strip()
    deeper = len(lines) == 1 or len(lines[1]) - len(lines[1].lstrip()) >= indent
    if not (_SIGNATURE.match(first) and deeper and not _ENDS.search(first)):
        return lines
    context.enter_signature(first, indent)
    rest = [line for line in lines[1:] if not _SIGNATURE.match(line.strip())]
    return rest if len(rest) < len(lines) - 1 or rest else []


def _items(lines: list[str]) -> Iterator[list[str]]:
    """The block, stripped, cut where a list item begins."""
    item: list[str] = []
    for line in lines:
        stripped = line.strip()
        if _LIST_ITEM.match(stripped) and item:
            yield item
            item = []
        item.append(stripped)
    if item:
        yield item


def _cleaned(paragraph: str) -> str:
    """Single spaces, no bold marks, and literals in single backticks."""
    plain = _ROLE.sub(r"`\1`", paragraph).replace("``", "`")
    plain = _BOLD.sub(r"\1", plain)
    return re.sub(r"\s+", " ", plain).strip()


def _is_prose(paragraph: str) -> bool:
    """Whether it reads as sentences: enough words, enough function words, few symbols."""
    words = _WORD.findall(paragraph)
    if len(words) < _MIN_WORDS or _CODE.search(paragraph):
        return False
    stop_words = sum(word.lower() in STOP_WORDS for word in words)
    symbols = sum(character in _SYMBOLS for character in paragraph)
    return stop_words >= _MIN_STOP_WORD_SHARE * len(words) and symbols <= _MAX_SYMBOL_SHARE * len(paragraph)


def _is_fragment(sentence: str, *, opens: bool) -> bool:
    """Whether it is cut: at the chunk's edge, or too short to say anything."""
    if len(_WORD.findall(sentence)) < _MIN_WORDS:
        return True
    if opens and not (sentence[0].isupper() or sentence[0] in "\"“'`*("):
        return True
    return not _ENDS.search(sentence)
