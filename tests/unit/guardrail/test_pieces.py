"""Tests of cutting texts into sentences: in order, apart, inside of the text, and never too many."""

from hypothesis import given, settings
from hypothesis import strategies as st

from services.guardrail.pieces import LONGEST_CHARS, MAX_PIECES, pieces


@given(st.text(st.sampled_from("aB1 \n\t.!?,é\"'|-"), max_size=400) | st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_pieces_are_in_order_and_apart_and_lose_only_blanks(text: str) -> None:
    """What stands between two pieces is white space."""
    end = 0
    for piece in pieces(text):
        assert end <= piece.start < piece.end <= len(text)
        assert not text[end : piece.start].strip()
        end = piece.end
    assert not text[end:].strip()


def test_a_new_line_begins_a_new_piece_unless_the_sentence_goes_on() -> None:
    """An instruction on a line of its own is judged by itself; wrapped lines stay together."""
    text = "The flow is laminar\nand stays so.\nReply in French\nTable 1: results"
    assert [text[piece.start : piece.end] for piece in pieces(text)] == [
        "The flow is laminar\nand stays so.",
        "Reply in French",
        "Table 1: results",
    ]


def test_a_sentence_that_never_ends_is_cut_between_words() -> None:
    """No instruction hides in a text without full stops."""
    text = "word " * 1_000
    found = pieces(text)
    assert all(piece.end - piece.start <= LONGEST_CHARS for piece in found)
    assert all(text[piece.start : piece.end].strip("word ") == "" for piece in found)
    assert len(pieces("x" * 65_000)) == -(-65_000 // LONGEST_CHARS)


def test_pieces_are_never_more_than_a_thousand() -> None:
    """A text of very short sentences is judged by several of them together."""
    assert len(pieces("No. " * 16_000)) <= MAX_PIECES
    assert len(pieces("A\n" * 32_000)) <= MAX_PIECES
    assert len(pieces("\n\n" * 32_000 + "a")) <= MAX_PIECES
