"""Citation markers are found where they cite, and nowhere else."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.domain.chunk import Chunk, ScoredChunk
from servicekit.domain.prompt import ContextChunk
from services.generator.citations import MAX_CITATIONS, find_citations


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
        ("A range [1-3], or [2\u20133], or [1, 2-3].", ["c1", "c2", "c3", "c2", "c3", "c1", "c2", "c3"], ()),
        ("Years [1990-2020], backwards [3-1], beyond [2-4].", ["c2", "c3"], ("[1990-2020]", "[3-1]", "[2-4]")),
        (
            "Wide \u30101\u3011, \uff3b\uff12\uff0c\uff13\uff3d, \u30103\u2020source\u3011.",
            ["c1", "c2", "c3", "c3"],
            (),
        ),
        ("[Document 1] [doc 2] [Sources: 1 and 3] [^2] [#3]", ["c1", "c2", "c1", "c3", "c2", "c3"], ()),
        ("Twice in one [1, 1-2].", ["c1", "c2"], ()),
        ("Linked [1](https://example.org), a picture ![2](p.png).", ["c1"], ()),
        ("An index of an index: rows[0][1]; doubled [[2]].", ["c2"], ()),
        ("Two ticks ``a ` [1]`` and [2]; one tick alone ` [3].", ["c2", "c3"], ()),
        ("~~~\n[1]\n~~~\n[2]", ["c2"], ()),
        ("A longer fence ````\n```\n[1]\n````\n[3]", ["c3"], ()),
        ("`open\n[1]` next", ["c1"], ()),
    ],
)
def test_markers_resolve(answer: str, cited: list[str], invalid: tuple[str, ...]) -> None:
    """Each way to write a marker resolves or is reported, and what is no marker is neither."""
    found = find_citations(answer, _context(3))
    assert [citation.chunk.chunk_id for citation in found.resolved] == cited
    assert found.invalid == invalid


@given(st.text(alphabet="ab [],0123456789`()_.-~!\u3010\u3011\u2020\uff11\n", max_size=200), st.integers(0, 12))
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


@pytest.mark.parametrize(
    "piece",
    [
        "[1] ",
        "[",
        "[1,",
        "[1 ",
        "[1-",
        "` ",
        "`` ` ",
        "```\n",
        "[1-3]`",
        "~~~\n",
        "a[1]",
        "\u30101\u2020",
        "[1" + " " * 99,
    ],
)
def test_no_answer_takes_long(piece: str) -> None:
    """Pieces that a careless search would look through again and again: half a million characters take no seconds."""
    context = _context(3)
    answer = piece * (500_000 // len(piece))
    begin = time.process_time()
    found = find_citations(answer, context)
    assert time.process_time() - begin < 2
    assert len(found.resolved) <= MAX_CITATIONS
