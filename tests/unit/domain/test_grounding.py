"""Tests of lexical groundedness: support per sentence, what caps it, and its quality on public data."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.domain.grounding import UNSUPPORTED, Evidence, ground

CHUNKS = (
    """The with statement is used to wrap the execution of a block. It does not catch the exception by itself.
    Python 3.8 added asyncio.run in twenty modules.""",
    "A coroutine is declared with the async def syntax. The open_connection() call returns 2 objects.",
)
DATA = Path(__file__).parents[3].parent / "shared" / "data" / "grounding"


def test_a_copied_sentence_is_fully_supported() -> None:
    """What an extractive answer says word by word has support 1, its citation markers aside."""
    grounding = ground("A coroutine is declared with the async def syntax [2].", CHUNKS)
    assert grounding.score == 1.0
    assert grounding.unsupported == ()


def test_an_invented_sentence_is_unsupported_and_named() -> None:
    """The span names the sentence that the chunks do not hold, in the answer's characters."""
    answer = "A coroutine is declared with async def. Bananas grow in Ecuador."
    grounding = ground(answer, CHUNKS)
    assert [answer[span.start : span.end] for span in grounding.unsupported] == ["Bananas grow in Ecuador."]
    assert 0 < grounding.score < 1


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("Python 3.9 added asyncio.run.", "missing_numbers"),
        ("The open_stream() call returns 2 objects.", "missing_identifiers"),
        ("The with statement does catch the exception by itself.", ""),
        ("It does catch the exception by itself.", "negation_differs"),
        ("A coroutine is not declared with the async def syntax.", "negation_differs"),
    ],
)
def test_numbers_identifiers_and_negations_must_agree(answer: str, fault: str) -> None:
    """A sentence of the chunks' own words with another number, name or negation is capped below support."""
    (sentence,) = ground(answer, CHUNKS).sentences
    if fault:
        assert getattr(sentence, fault)
        assert sentence.support < UNSUPPORTED


def test_numbers_agree_however_they_are_written() -> None:
    """Spelled numbers, ordinals and thousands separators are the same number."""
    chunk = "It has fifty users and 1,000 chunks since the 7th of May, in two parts."
    grounding = ground("It has 50 users, 1000 chunks since May 7, in 2 parts.", [chunk])
    assert not grounding.sentences[0].missing_numbers
    assert not grounding.unsupported


def test_best_single_chunk_counts_not_all_together() -> None:
    """Words scattered over chunks support less than the same words in one."""
    answer = "Red green blue yellow paint."
    assert ground(answer, ["red green", "blue yellow paint"]).score < ground(answer, [answer]).score


def test_an_answer_that_states_nothing_is_grounded() -> None:
    """Nothing stated is nothing unsupported; no chunks support nothing."""
    assert ground("", CHUNKS).score == 1.0
    assert ground("[1] [2]", CHUNKS).score == 1.0
    assert ground("Bees fly.", []).score == 0.0


@pytest.mark.parametrize("text", ["x" * 65_536, "a_" * 30_000, "1" * 60_000, "e\u0301" * 30_000, "aB" * 30_000])
@pytest.mark.timeout(10)
def test_hostile_texts_take_no_longer(text: str) -> None:
    """Words of 60,000 characters are compared as they stand: no stemmer, no backtracking."""
    ground(text, [text[:50_000]])


@given(st.text(max_size=200), st.lists(st.text(max_size=100), max_size=3))
def test_scores_and_spans_stay_in_bounds(answer: str, chunks: list[str]) -> None:
    """Whatever the texts, support and score are 0 to 1 and spans lie inside the answer, in order."""
    grounding = Evidence(chunks).ground(answer)
    assert 0.0 <= grounding.score <= 1.0
    position = 0
    for sentence in grounding.sentences:
        assert 0.0 <= sentence.support <= 1.0 + 1e-9
        assert position <= sentence.span.start < sentence.span.end <= len(answer)
        position = sentence.span.end


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data/grounding is not there")
@pytest.mark.parametrize(("domain", "least"), [("wow", 0.95), ("cmu", 0.96), ("tc", 0.92)])
def test_support_separates_attributable_answers(domain: str, least: float) -> None:
    """AUROC of the score for fully attributable answers of BEGIN, against all others."""
    with (DATA / f"begin_dev_{domain}.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    scores: dict[bool, list[float]] = {True: [], False: []}
    for row in rows:
        attributable = row["begin_label"].strip() == "Fully attributable"
        scores[attributable].append(ground(row["response"], [row["knowledge"]]).score)
    wins = sum((good > bad) + 0.5 * (good == bad) for good in scores[True] for bad in scores[False])
    assert wins / (len(scores[True]) * len(scores[False])) >= least


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("The bridge was designed by Fionn Cavill in the north of the city.", "missing_names"),
        ("The bridge was designed by Anna Kowalska in the south of the city.", "opposite_said"),
        ("The bridge was not designed by Anna Kowalska in the north of the city.", "negation_differs"),
        ("The bridge was designed by Anna Kowalska in the north of the city in 1907.", "missing_numbers"),
    ],
)
def test_one_swap_in_a_copied_sentence_is_a_contradiction(answer: str, fault: str) -> None:
    """Another name, an opposite word, a negation or a number turns a copy into an unsupported sentence."""
    chunk = "The bridge was designed by Anna Kowalska in the north of the city. It is a Canadian bridge of 1906."
    copied, swapped = (ground(text, [chunk]).sentences[0] for text in (chunk.partition(". ")[0], answer))
    assert copied.supported
    assert not copied.contradicted
    assert getattr(swapped, fault)
    assert swapped.doubt > 1 - UNSUPPORTED


def test_a_name_with_another_ending_is_the_same_name() -> None:
    """What a chunk calls Canadian may be of Canada; a title's capitals and a sentence's first word are no names."""
    chunk = "A Canadian engineer designed the bridge."
    assert not ground("The bridge was designed by an engineer of Canada.", [chunk]).sentences[0].missing_names
    assert not ground("Key Benefits Of Bridges", [chunk]).sentences[0].missing_names
    assert not ground("Engineers designed the bridge.", [chunk]).sentences[0].missing_names


def test_a_short_aside_of_a_supported_answer_is_no_claim() -> None:
    """Few unsupported words are weighed against the answer; a sentence of its own content is doubted in any answer."""
    supported = "The with statement is used to wrap the execution of a block. A coroutine is declared with async def."
    aside, claim = (
        ground(f"{supported} {text}", CHUNKS).sentences[-1] for text in ("Sure.", "Bananas ripen in humid warehouses.")
    )
    assert not aside.supported
    assert aside.doubt < 1 - UNSUPPORTED
    assert claim.doubt > 1 - UNSUPPORTED


def test_what_the_speaker_says_of_itself_is_not_supported() -> None:
    """Chunks cannot support "I have": the same words about the matter have more support."""
    mine, plain = (ground(text, CHUNKS) for text in ("I declared my coroutine with async def.", "Coroutine async def."))
    assert mine.score < plain.score


@pytest.mark.parametrize(
    ("chunk", "copied", "invented"),
    [
        (
            "Die Brücke wurde 1906 gebaut. Sie ist aus Stahl.",
            "Die Brücke wurde 1906 gebaut.",
            "Die Brücke wurde 1921 gebaut.",
        ),
        ("Le pont est en acier.", "Le pont est en acier.", "La banane mûrit vite."),
        ("Мост построен из стали.", "Мост построен из стали.", "Бананы растут быстро."),
    ],
)
def test_other_languages_are_compared_word_by_word(chunk: str, copied: str, invented: str) -> None:
    """A copied sentence is supported and an invented one is not, whatever the language with spaces."""
    assert ground(copied, [chunk]).sentences[0].supported
    assert not ground(invented, [chunk]).sentences[0].supported
