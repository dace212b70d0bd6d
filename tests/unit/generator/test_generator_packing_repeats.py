"""What chunks repeat of each other goes into a prompt once."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from servicekit.domain.chunk import ScoredChunk
from services.generator.context.repeats import holders, without_overlap
from services.generator.packing import Prompt
from tests.unit.generator.packing_prompts import chunk, kept, packed_within, words

QUESTION = "Which berth is free?"
TEXT = words(60, "berth")


def test_equal_chunks_go_in_once() -> None:
    """Of the same text in several documents the best ranked stays; the others are told as duplicates."""
    packed = packed_within(Prompt(QUESTION, [chunk(1, TEXT), chunk(2, "Other."), chunk(3, f"{TEXT}\n")], ()), 9_000)
    assert kept(packed) == ["c1", "c2"]
    assert (packed.duplicate_chunks, packed.dropped_chunks) == (1, 0)


def test_a_chunk_within_another_is_left_out() -> None:
    """What stands whole in a chunk that goes in is not said twice, whichever ranks first."""
    packed = packed_within(Prompt(QUESTION, [chunk(1, TEXT[10:90]), chunk(2, TEXT)], ()), 9_000)
    assert (kept(packed), packed.duplicate_chunks) == (["c2"], 1)


def test_a_chunk_stays_where_the_one_around_it_does_not_fit() -> None:
    """A good chunk is not lost to a long one that holds it and has no room."""
    around = words(5_000, "far") + " " + TEXT
    packed = packed_within(Prompt(QUESTION, [chunk(1, TEXT), chunk(2, around, score=0.5)], ()), 120)
    assert kept(packed)[0] == "c1"
    assert packed.duplicate_chunks == 0


def test_a_copy_of_a_held_chunk_is_held_too() -> None:
    """Copies of a chunk that stands in another are left out with it."""
    chunks = [chunk(1, "b c"), chunk(2, "a b c d"), chunk(3, "b c")]
    assert holders(chunks) == {0: (1,), 2: (0, 1)}


def test_neighbours_do_not_repeat_their_overlap() -> None:
    """A chunk that follows its neighbour begins where that ends; its place in the source moves along."""
    before = chunk(1, "One is here. Two is there.", document="d")
    after = replace(chunk(2, "Two is there. Three is gone.", document="d", start=13), overlap_chars=13)
    packed = packed_within(Prompt(QUESTION, [before, after], ()), 9_000)
    cut = packed.context[1].scored.chunk
    assert (cut.text, cut.start, cut.end) == ("Three is gone.", 27, 41)
    assert "".join(message.content for message in packed.messages).count("Two is there.") == 1


def test_an_overlap_is_kept_without_the_neighbour() -> None:
    """Only text that the prompt really has is left out: not that of another document, or of redacted text."""
    after = replace(chunk(2, "Two is there. Three.", document="d", start=13), overlap_chars=13)
    redacted = chunk(1, "One is here. <NAME> there.", document="d").chunk
    other = chunk(1, "One is here. Two is there.", document="e").chunk
    assert without_overlap(after, None) is after
    assert without_overlap(after, redacted) is after
    assert without_overlap(after, other) is after


def test_a_redacted_part_keeps_the_place_of_the_whole() -> None:
    """Where the text is not as long as its place, characters of one are none of the other."""
    before = chunk(1, "One. Two.", document="d").chunk
    after = chunk(2, "Two. Three.", document="d", start=5)
    after = replace(after, chunk=replace(after.chunk, end=40), overlap_chars=4)
    cut = without_overlap(after, before).chunk
    assert (cut.text, cut.start, cut.end) == ("Three.", 5, 40)


@given(st.lists(st.text(alphabet="ab ", max_size=8), max_size=9))
def test_nothing_is_lost_with_what_is_held(texts: list[str]) -> None:
    """Every text stands in one that no other holds."""
    chunks: list[ScoredChunk] = [chunk(rank, text) for rank, text in enumerate(texts, start=1)]
    held = holders(chunks)
    free = [text.strip() for index, text in enumerate(texts) if index not in held]
    assert len(free) == len(set(free))
    assert all(any(text.strip() in other for other in free) for text in texts)
