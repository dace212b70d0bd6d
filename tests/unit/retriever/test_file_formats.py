"""Reading PDF, Word, CSV and JSON lines, and whatever bytes come along as one of them."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servicekit.errors import InvalidRequest
from services.retriever.formats.csv_text import parse_csv
from services.retriever.formats.docx_text import parse_docx
from services.retriever.formats.json_lines import parse_json_lines
from services.retriever.formats.media_types import CSV, DOCX, HTML, JSON_LINES, MARKDOWN, MEDIA_TYPES, PDF, TEXT, sniff
from services.retriever.formats.parsing import BlockKind, ParsedDocument
from services.retriever.formats.pdf_text import parse_pdf
from services.retriever.formats.reading import parse_binary, parse_text
from tests.office_files import make_docx, make_pdf, paragraph, table


def _blocks(document: ParsedDocument) -> list[str]:
    return [document.text[block.start : block.end] for block in document.blocks]


def _check(document: ParsedDocument) -> None:
    position = 0
    for block in document.blocks:
        assert position <= block.start < block.end <= len(document.text)
        assert not document.text[position : block.start].strip()
        position = block.end
    assert not document.text[position:].strip()
    document.text.encode()  # no half of a surrogate pair, which no store holds
    assert "\0" not in document.text


@settings(deadline=None, max_examples=200)
@given(
    content=st.one_of(
        st.binary(max_size=400),
        st.text(max_size=300).map(str.encode),
        st.binary(max_size=60).map(lambda some: make_pdf([["One line", "Another"]])[:-40] + some),
        st.binary(max_size=60).map(lambda some: make_docx(paragraph("x"))[:200] + some),
    )
)
@pytest.mark.parametrize("media_type", [PDF, DOCX])
def test_any_bytes_become_text_or_a_refusal(media_type: str, content: bytes) -> None:
    """A file that is broken anywhere is read or refused with a reason; nothing else is raised."""
    try:
        document, reason = parse_binary(content, media_type=media_type), ""
    except InvalidRequest as exc:
        document, reason = ParsedDocument("", ()), exc.reason
    assert reason in {"", "MALFORMED_PDF", "MALFORMED_DOCX", "NO_TEXT_LAYER", "ENCRYPTED", "PARSE_LIMIT"}
    _check(document)


@settings(deadline=None, max_examples=200)
@given(text=st.text(max_size=400))
@pytest.mark.parametrize("media_type", [CSV, JSON_LINES, HTML, MARKDOWN, TEXT])
def test_any_text_becomes_blocks_or_a_refusal(media_type: str, text: str) -> None:
    """Whatever the text, its blocks stand in order inside what was read, or a reason says why not."""
    try:
        document, reason = parse_text(text.replace("\0", ""), media_type=media_type), ""
    except InvalidRequest as exc:
        document, reason = ParsedDocument("", ()), exc.reason
    assert reason in {"", "MALFORMED_CSV", "MALFORMED_JSON", "MARKUP_TOO_DEEP"}
    _check(document)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=20) | st.none()), max_size=8))
def test_every_value_of_json_lines_is_kept(records: list[dict[str, object]]) -> None:
    """Each value that shows anything stands in the text of its record."""
    document = parse_json_lines("\n".join(json.dumps(record) for record in records))
    _check(document)
    shown = " ".join(document.text.split())
    for record in records:
        for value in record.values():
            text = " ".join(("" if value is None else str(value)).replace("\0", "").split())
            assert text in shown


def test_a_page_is_read_in_paragraphs_under_its_number() -> None:
    """Without an outline the page's number is the heading; running heads are left out."""
    wide = "The moon pulls the water of the sea towards it, and the sea rises twice a day."
    names = ["Brest", "Kiel", "Aden", "Lima"]
    pages = [
        ["Tides of the world", f"{name}. {wide}", f"It falls at {name}.", wide, f"So it is in {name}", f"Page {number}"]
        for number, name in enumerate(names, start=1)
    ]
    document = parse_pdf(make_pdf(pages))
    _check(document)
    assert {block.heading_path for block in document.blocks} == {(f"Page {number}",) for number in (1, 2, 3, 4)}
    assert _blocks(document)[:2] == [f"Brest. {wide}\nIt falls at Brest.", f"{wide}\nSo it is in Brest"]
    assert "Tides of the world" not in document.text
    assert not any(line.startswith("Page") for line in document.text.splitlines())


def test_an_outline_gives_the_headings() -> None:
    """Pages stand under the latest heading of the outline."""
    pages = [["Cover"], ["First words of it"], ["More of the first"], ["Second words"]]
    document = parse_pdf(make_pdf(pages, outline=[("Moon", 1), ("Sun", 3)]))
    assert [block.heading_path for block in document.blocks] == [(), ("Moon",), ("Moon",), ("Sun",)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (make_pdf([["secret"]], password="open"), "ENCRYPTED"),
        (make_pdf([[]]), "NO_TEXT_LAYER"),
        (b"%PDF-1.7 and nothing", "MALFORMED_PDF"),
        (b"plain text", "MALFORMED_PDF"),
    ],
)
def test_a_pdf_without_text_is_refused_with_its_reason(content: bytes, reason: str) -> None:
    """Locked, empty and broken files are told apart."""
    with pytest.raises(InvalidRequest) as caught:
        parse_pdf(content)
    assert caught.value.reason == reason


def test_a_word_file_keeps_headings_and_tables() -> None:
    """Headings become the path, table cells stay lines."""
    body = (
        paragraph("Compass", style="Heading1")
        + paragraph("Needle", style="Heading2")
        + paragraph("It points north.")
        + table([["a", "1"], ["b", "2"]])
    )
    document = parse_docx(make_docx(body))
    _check(document)
    assert document.blocks[2].heading_path == ("Compass", "Needle")
    assert "It points north." in _blocks(document)
    kinds = {document.text[block.start : block.end]: block.kind for block in document.blocks}
    assert kinds["1"] is BlockKind.LINES
    assert document.title == "Compass"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04broken", "MALFORMED_DOCX"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1old", "ENCRYPTED"),
        (b"", "MALFORMED_DOCX"),
    ],
)
def test_what_is_no_word_file_is_refused(content: bytes, reason: str) -> None:
    """The reason tells a broken archive from the old format."""
    with pytest.raises(InvalidRequest) as caught:
        parse_docx(content)
    assert caught.value.reason == reason


def test_rows_of_csv_stand_by_themselves() -> None:
    """Each row names its columns; blank cells are left out; any usual delimiter is found."""
    for delimiter in ",;\t|":
        text = f'name{delimiter}port{delimiter}note\nBrest{delimiter}3{delimiter}\nKiel{delimiter}5{delimiter}"a, b"\n'
        assert _blocks(parse_csv(text)) == ["name: Brest; port: 3", "name: Kiel; port: 5; note: a, b"]


def test_csv_without_names_keeps_its_values() -> None:
    """A first row with a number is a row."""
    assert _blocks(parse_csv("Brest,3\nKiel,5\n")) == ["Brest; 3", "Kiel; 5"]


def test_json_lines_are_flattened() -> None:
    """Nested values are named by their path, lists of scalars joined, records parted."""
    text = '{"id": 7, "who": {"name": "Ada"}, "tags": ["x", "y"], "none": null}\n\n{"ok": true}\n"alone"\n'
    assert _blocks(parse_json_lines(text)) == ["id: 7; who.name: Ada; tags: x, y", "ok: true", "alone"]


def test_a_line_that_is_no_json_is_named() -> None:
    """The refusal says which line."""
    with pytest.raises(InvalidRequest, match="line 2 is no JSON"):
        parse_json_lines('{"a": 1}\n{a}\n')


@pytest.mark.parametrize(
    ("content", "uri", "media_type"),
    [
        (b"%PDF-1.4 x", "", PDF),
        (make_docx(paragraph("x")), "", DOCX),
        (b"a,b\n1,2", "https://example.org/data.CSV?x=1", CSV),
        (b"{}", "file:///tmp/a.jsonl", JSON_LINES),
        (b"# T", "notes.md", MARKDOWN),
        (b"\n<!DOCTYPE html><p>x", "", HTML),
        (b"anything", "https://example.org/page", TEXT),
        (b"anything", "http://[broken", TEXT),
    ],
)
def test_a_document_without_a_type_is_recognised(content: bytes, uri: str, media_type: str) -> None:
    """By what it begins with, then by its name."""
    assert sniff(content, uri) == media_type
    assert media_type in MEDIA_TYPES
