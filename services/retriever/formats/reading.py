"""Chooses the parser of a media type, from two tables: texts, and formats that are no text. Pure.

Texts are read by `preparing.py` in its own process, the others by `parse_worker.py` in another.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from services.retriever.formats.csv_text import parse_csv
from services.retriever.formats.html_text import parse_html
from services.retriever.formats.json_lines import parse_json_lines
from services.retriever.formats.markdown import parse_markdown
from services.retriever.formats.media_types import CSV, DOCX, HTML, JSON_LINES, MARKDOWN, PDF, TEXT
from services.retriever.formats.parsing import ParsedDocument
from services.retriever.formats.plain_text import parse_plain_text

_TEXT_PARSERS: Mapping[str, Callable[[str], ParsedDocument]] = MappingProxyType(
    {
        TEXT: parse_plain_text,
        MARKDOWN: parse_markdown,
        HTML: parse_html,
        CSV: parse_csv,
        JSON_LINES: parse_json_lines,
    }
)


def parse_text(text: str, *, media_type: str) -> ParsedDocument:
    """A document that is text.

    Raises:
        InvalidRequest: it is not what its media type says.
    """
    return _TEXT_PARSERS[media_type](text)


def parse_binary(content: bytes, *, media_type: str) -> ParsedDocument:
    """A document that is none; its library is imported only then.

    Raises:
        InvalidRequest: it is damaged, locked, or holds no text.
    """
    if media_type == PDF:
        from services.retriever.formats.pdf_text import parse_pdf  # noqa: PLC0415

        return parse_pdf(content)
    assert media_type == DOCX, media_type
    from services.retriever.formats.docx_text import parse_docx  # noqa: PLC0415

    return parse_docx(content)
