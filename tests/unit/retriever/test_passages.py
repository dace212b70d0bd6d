"""Passages: neighbours come along, runs of one document stand together in reading order, nothing found is lost."""

from hypothesis import given
from hypothesis import strategies as st

from servicekit.domain.chunk import Chunk, ScoredChunk
from servicekit.ports.vector_store import ChunkPlace
from services.retriever.search.passages import in_passages, neighbour_places, with_neighbours

SOURCE = "".join(chr(ord("a") + place % 26) for place in range(400))
STEP, LENGTH = 10, 14


def make_chunk(document_id: str, ordinal: int, revision: int = 1) -> Chunk:
    """A chunk whose begin repeats four characters of the one before it."""
    start, end = ordinal * STEP, ordinal * STEP + LENGTH
    return Chunk(
        chunk_id=f"{document_id}/{revision}/{ordinal}",
        document_id=document_id,
        revision=revision,
        content_hash="",
        text=SOURCE[start:end],
        start=start,
        end=end,
        ordinal=ordinal,
    )


def ranked(*places: tuple[str, int]) -> list[ScoredChunk]:
    """Found chunks, best first."""
    return [
        ScoredChunk(make_chunk(document_id, ordinal), rank, 1 - rank / 100)
        for rank, (document_id, ordinal) in enumerate(places, start=1)
    ]


PLACES = st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 20)), unique=True, max_size=25)
CORPUS = {ChunkPlace(name, ordinal): make_chunk(name, ordinal) for name in "ABC" for ordinal in range(21)}


def test_adjacent_chunks_stand_together_where_the_best_of_them_ranked() -> None:
    """A chunk that follows the best one directly comes up to it; one further on stays where it was."""
    placed = in_passages(ranked(("A", 5), ("B", 0), ("A", 4), ("A", 8)))
    assert [(one.chunk.document_id, one.chunk.ordinal, one.passage) for one in placed] == [
        ("A", 4, 1),
        ("A", 5, 1),
        ("B", 0, 2),
        ("A", 8, 3),
    ]
    assert [one.rank for one in placed] == [1, 2, 3, 4]
    assert [one.overlap_chars for one in placed] == [0, 4, 0, 0]


def test_neighbours_are_asked_for_once_and_never_before_the_begin() -> None:
    """Places of found chunks and negative ones are not asked for."""
    places = neighbour_places(ranked(("A", 0), ("A", 2)), width=2)
    assert places == [ChunkPlace("A", ordinal) for ordinal in (1, 3, 4)]


def test_a_neighbour_has_the_score_of_the_best_chunk_that_brought_it() -> None:
    """Between two found chunks it is the better one's, and it says that it is a neighbour."""
    found = ranked(("A", 0), ("A", 2))
    together = with_neighbours(found, CORPUS, width=1)
    (between,) = (one for one in together if one.chunk.ordinal == 1)
    assert (between.neighbour, between.score, between.dense_score) == (True, found[0].score, None)


def test_a_neighbour_of_another_revision_stays_away() -> None:
    """A document that was replaced between search and expansion shows its old chunks alone."""
    newer = {ChunkPlace("A", ordinal): make_chunk("A", ordinal, revision=2) for ordinal in range(3)}
    assert len(with_neighbours(ranked(("A", 1)), newer, width=1)) == 1


def test_a_neighbour_without_its_link_is_left_out() -> None:
    """What is two away comes along only with what lies between."""
    gap = {ChunkPlace("A", 3): make_chunk("A", 3)}
    assert [one.chunk.ordinal for one in in_passages(with_neighbours(ranked(("A", 1)), gap, width=2))] == [1]


@given(places=PLACES)
def test_passages_are_a_permutation_with_the_best_in_the_first(places: list[tuple[str, int]]) -> None:
    """Every chunk comes out once, ranks run from 1, and the best found chunk stands in the first passage."""
    found = ranked(*places)
    placed = in_passages(found)
    assert {one.chunk.chunk_id for one in placed} == {one.chunk.chunk_id for one in found}
    assert [one.rank for one in placed] == list(range(1, len(found) + 1))
    if found:
        assert found[0].chunk.chunk_id in {one.chunk.chunk_id for one in placed if one.passage == 1}


@given(places=PLACES, width=st.integers(0, 3))
def test_within_a_passage_the_source_reads_on(places: list[tuple[str, int]], width: int) -> None:
    """Without their overlaps the chunks of a passage are one stretch of the source, as long as can be."""
    found = ranked(*places)
    placed = in_passages(with_neighbours(found, CORPUS, width=width))
    numbers = [one.passage for one in placed]
    assert numbers == sorted(numbers)
    for number in set(numbers):
        run = [one for one in placed if one.passage == number]
        assert len({one.chunk.document_id for one in run}) == 1
        joined = "".join(one.chunk.text[one.overlap_chars :] for one in run)
        assert joined == SOURCE[run[0].chunk.start : run[-1].chunk.end]
    ends = {(one.chunk.document_id, one.chunk.ordinal): one.passage for one in placed}
    assert all(ends.get((name, ordinal + 1), number) == number for (name, ordinal), number in ends.items())
    assert len(placed) >= len(found)
