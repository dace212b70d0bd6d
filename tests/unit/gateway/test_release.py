"""Text held back to sentence ends comes out whole, whatever the tokens it came in."""

from hypothesis import given
from hypothesis import strategies as st

from servicekit.domain.verdict import Span
from services.gateway.backends import AnswerCitation
from services.gateway.release import MAX_PIECE_CHARS, HoldBack, Piece, relocate

_TEXT = st.text(
    alphabet=st.one_of(st.sampled_from("abc .!?\n\t'\"…。)[]1"), st.characters(exclude_categories=["Cs"])),
    max_size=400,
)


@given(st.lists(_TEXT, max_size=30), st.integers(1, 300))
def test_pieces_join_to_the_text(tokens: list[str], max_held_chars: int) -> None:
    """Whatever the token boundaries, what is taken and the rest are the text, and nothing is held for ever."""
    hold = HoldBack(max_held_chars=max_held_chars)
    taken = []
    for token in tokens:
        hold.feed(token)
        while hold.ready:
            taken.append(hold.take())
        assert len(hold.held) <= max_held_chars
    while hold.held:
        taken.append(hold.take_rest())
    assert "".join(taken) == "".join(tokens)
    assert all(taken)


@given(st.integers(1, 40), st.integers(1, 12))
def test_a_sentence_goes_once_the_next_has_begun(sentences: int, width: int) -> None:
    """With every token fed, all sentences but the last have gone, each whole."""
    text = " ".join(f"Sentence number {n} is here." for n in range(sentences))
    hold = HoldBack()
    taken = []
    for start in range(0, len(text), width):
        hold.feed(text[start : start + width])
        if hold.ready:
            taken.append(hold.take())
    assert hold.held == f"Sentence number {sentences - 1} is here."
    assert all(piece.endswith(". ") for piece in taken)


def test_an_abbreviation_ends_no_sentence() -> None:
    """Text is not cut after an abbreviation's point."""
    hold = HoldBack()
    for token in ("Dr. ", "Smith ", "came. ", "He "):
        hold.feed(token)
    assert hold.take() == "Dr. Smith came. "


def test_pieces_are_bounded() -> None:
    """However much arrives at once, a piece stays within what a guard takes."""
    hold = HoldBack()
    hold.feed("A sentence. " * 5_000)
    assert len(hold.take()) == MAX_PIECE_CHARS


def _citation(marker: str, start: int) -> AnswerCitation:
    return AnswerCitation(marker, Span(start, start + len(marker)), "c", "d", 1, "h", Span(0, 1), "", "")


def test_citations_follow_their_markers_through_redaction() -> None:
    """Spans move by what redaction added or removed; a marker that was redacted away cites nothing."""
    source = ["Mail ann@x.org [1]. ", "See [2] and [1]. ", "Gone [3]."]
    released = ["Mail [EMAIL_1] [1]. ", "See [2] and [1]. ", "Gone."]
    text = "".join(source)
    markers = [("[1]", 15), ("[2]", text.index("[2]")), ("[1]", text.rindex("[1]")), ("[3]", text.index("[3]"))]
    pieces = [Piece(one, other) for one, other in zip(source, released, strict=True)]
    moved = relocate([_citation(marker, start) for marker, start in markers], pieces)
    joined = "".join(released)
    assert [joined[one.span.start : one.span.end] for one in moved] == ["[1]", "[2]", "[1]"]
    assert [one.span.start for one in moved] == [15, joined.index("[2]"), joined.rindex("[1]")]


@given(st.lists(st.text("ab [1].", max_size=12), min_size=1, max_size=5))
def test_unchanged_text_leaves_citations_alone(parts: list[str]) -> None:
    """Without redaction every citation stays where it was."""
    citations = (_citation("[1]", 0), _citation("[2]", 5))
    assert relocate(citations, [Piece(part, part) for part in parts]) == citations
