"""Reading documents: headings, blocks and titles of each media type, and markup that is broken."""

import pytest

from servicekit.errors import InvalidRequest
from services.retriever.formats.html_text import MAX_DEPTH, parse_html
from services.retriever.formats.markdown import parse_markdown
from services.retriever.formats.parsing import BlockKind, ParsedDocument
from services.retriever.formats.plain_text import parse_plain_text


def _blocks(document: ParsedDocument) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(block.kind.value, document.text[block.start : block.end], block.heading_path) for block in document.blocks]


def test_plain_text_has_paragraphs_headings_and_lists() -> None:
    """Underlined lines are headings whose level is the order of their underline; lists keep their lines."""
    document = parse_plain_text(
        'The "with" statement\n********************\n\nIt wraps a block.\nIt closes things.\n\n'
        "Details\n=======\n- one\n- two\n\nOther\n=====\n\nMore text."
    )
    title = 'The "with" statement'
    assert document.title == title
    assert [(kind, path) for kind, _, path in _blocks(document)] == [
        ("heading", (title,)),
        ("prose", (title,)),
        ("heading", (title, "Details")),
        ("lines", (title, "Details")),
        ("heading", (title, "Other")),
        ("prose", (title, "Other")),
    ]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_every_line_ending_parts_paragraphs(newline: str) -> None:
    """Unix, Windows and old Mac files have the same blocks."""
    document = parse_plain_text(f"one{newline}two{newline}{newline}three")
    assert [text for _, text, _ in _blocks(document)] == [f"one{newline}two", "three"]


def test_a_rule_is_no_heading() -> None:
    """A line of dashes under something much longer or shorter underlines nothing."""
    document = parse_plain_text("A long line of text that goes on and on\n---\nmore")
    assert [block.kind for block in document.blocks] == [BlockKind.PROSE]


def test_markdown_blocks_are_slices_of_the_source() -> None:
    """Headings of both kinds, paragraphs, lists, code and tables are found where they stand."""
    source = (
        "# The `with` *statement*\n\nSome **bold** text.\n\nSetext [link](http://x)\n---\n\n- a\n- b\n\n"
        "```py\n# no heading\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n[ref]: http://example.org\n"
    )
    document = parse_markdown(source)
    assert document.title == "The with statement"
    inner = ("The with statement", "Setext link")
    assert _blocks(document) == [
        ("heading", "# The `with` *statement*", inner[:1]),
        ("prose", "Some **bold** text.", inner[:1]),
        ("heading", "Setext [link](http://x)\n---", inner),
        ("lines", "- a\n- b", inner),
        ("lines", "```py\n# no heading\n```", inner),
        ("lines", "| a | b |\n|---|---|\n| 1 | 2 |", inner),
        ("lines", "[ref]: http://example.org", inner),
    ]


def test_html_shows_what_a_reader_sees() -> None:
    """Markup, scripts and styles go; headings, paragraphs, lists and preformatted text stay in order."""
    document = parse_html(
        "<html><head><title> The  Page </title><style>p{}</style></head><body><h1>Top</h1>"
        "<p>One &amp; two<br>lines</p><script>alert(1)</script><ul><li>first<li>second</ul>"
        "<h2>Part</h2>loose text<pre>a\n  b</pre><!-- no --><table><tr><td>x</td><td>y</td></tr></table>"
    )
    assert document.title == "The Page"
    assert _blocks(document) == [
        ("heading", "Top", ("Top",)),
        ("prose", "One & two lines", ("Top",)),
        ("lines", "first", ("Top",)),
        ("lines", "second", ("Top",)),
        ("heading", "Part", ("Top", "Part")),
        ("prose", "loose text", ("Top", "Part")),
        ("lines", "a\n  b", ("Top", "Part")),
        ("lines", "x", ("Top", "Part")),
        ("lines", "y", ("Top", "Part")),
    ]


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("<p>unclosed", "unclosed"),
        ("</p></div>text", "text"),
        ("<<<>>>text", "<<<>>>text"),
        ("<p title='x>text", ""),
        ("&#xFFFFFFF;text", "\ufffdtext"),
    ],
)
def test_broken_html_is_read_as_browsers_read_it(source: str, shown: str) -> None:
    """No markup is refused for being wrong, and what a browser would show is there."""
    assert parse_html(source).text.strip() == shown


def test_html_without_text_has_no_blocks() -> None:
    """A page of scripts shows nothing."""
    assert parse_html("<script>x</script><style>y</style><div>\n</div>").blocks == ()


def test_html_nested_beyond_reason_is_refused() -> None:
    """The parser's time grows with the square of the depth, so depth has a bound; lists of lists do not reach it."""
    with pytest.raises(InvalidRequest, match="deeper than"):
        parse_html("<div>" * 100_000 + "x")
    assert parse_html("<div>" * MAX_DEPTH + "x").text == "x"
    assert parse_html("<p>a" * 5_000).blocks


def test_headings_close_their_own_level() -> None:
    """A heading ends every open section of its level or deeper."""
    document = parse_markdown("# A\n\n### C\n\n## B\n\n# D\n")
    assert [block.heading_path for block in document.blocks] == [("A",), ("A", "C"), ("A", "B"), ("D",)]
