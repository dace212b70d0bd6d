"""Citation markers are found where they cite, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.domain.chunk import Chunk, ScoredChunk
from servicekit.domain.prompt import ContextChunk
from services.generator.citations import find_citations


def _context(count: int) -> tuple[ContextChunk, ...]:
    return tuple(
        ContextChunk(n, ScoredChunk(Chunk(f"c{n}", f"d{n}", 1, "0" * 64, f"text {n}"), n, 1.0))
        for n in range(1, count + 1)
    )


@pytest.mark.parametrize(
    ("answer", "cited", "invalid"),
    [
        ("It opens at six [1].", ["c1"], ()),
        ("It opens at six[2].", ["c2"], ()),
        ("One [1][3]; two [1, 2].", ["c1", "c3", "c1", "c2"], ()),
        ("Nothing here.", [], ()),
        ("Made up [7], and again [7] [0].", [], ("[7]", "[0]")),
        ("Half right [1, 9].", ["c1"], ("[1, 9]",)),
        ("The first is items[0], or f(x)[9].", [], ()),
        ("`[1]` is a list, ```\n[2]\n``` too; but [3].", ["c3"], ()),
        ("An open fence ```\n[1]", [], ()),
        ("[a] [] [1.5] [12345]", [], ()),
    ],
)
def test_markers_resolve(answer: str, cited: list[str], invalid: tuple[str, ...]) -> None:
    """Each way to write a marker resolves or is reported, and what is no marker is neither."""
    found = find_citations(answer, _context(3))
    assert [citation.chunk.chunk_id for citation in found.resolved] == cited
    assert found.invalid == invalid


@given(st.text(alphabet="ab [],0123456789`()_.\n", max_size=200), st.integers(0, 12))
def test_spans_hold_their_markers(answer: str, count: int) -> None:
    """Whatever the answer, each citation's span is its marker, in order, and its chunk was given."""
    context = _context(count)
    found = find_citations(answer, context)
    chunks = [item.scored.chunk for item in context]
    assert all(answer[c.start : c.end] == c.marker for c in found.resolved)
    assert [c.start for c in found.resolved] == sorted(c.start for c in found.resolved)
    assert all(c.chunk in chunks for c in found.resolved)
    assert all(marker in answer for marker in found.invalid)


@given(st.lists(st.tuples(st.text(alphabet="abc ", min_size=1, max_size=20), st.integers(1, 5)), max_size=10))
def test_every_written_marker_is_found(parts: list[tuple[str, int]]) -> None:
    """Markers written behind sentences come back in order, none lost."""
    answer = "".join(f"{text} [{number}]. " for text, number in parts)
    found = find_citations(answer, _context(5))
    assert [c.chunk.chunk_id for c in found.resolved] == [f"c{number}" for _, number in parts]
    assert found.invalid == ()
