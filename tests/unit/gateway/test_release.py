"""Citations are found again in text that was redacted."""

from hypothesis import given
from hypothesis import strategies as st

from servicekit.domain.verdict import Span
from services.gateway.backends import AnswerCitation
from services.gateway.release import Piece, relocate


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
