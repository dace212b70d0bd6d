"""Extraction reads prose out of documents and chooses what answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.adapters.extractive.engine import cited
from servicekit.adapters.extractive.prose import read_prose
from servicekit.adapters.extractive.selection import MAX_SENTENCES, Quote, choose
from servicekit.domain.chunk import Chunk, ScoredChunk
from servicekit.domain.prompt import ContextChunk

REFERENCE = """The "lock" statement
********************

   lock_stmt ::= "lock" expression ":" suite

The "lock" statement holds a gate closed while its suite runs.  It is
opened again [1] whatever happens.

For example:

   with lock(gate) as g:
       g.hold()

1. The gate is closed.

2. The suite is executed, and
   nothing else.

gate.open(width, *, slowly=False)

   Open the gate by the given number of metres.

+-----+-----+
| one | two |
+-----+-----+

[1] A footnote that is not part of the text at all.
"""


def _context(*texts: str, title: str = "") -> tuple[ContextChunk, ...]:
    return tuple(
        ContextChunk(n, ScoredChunk(Chunk(f"c{n}", f"d{n}", 1, "", text, title=title), n, 1.0))
        for n, text in enumerate(texts, start=1)
    )


def test_prose_is_unwrapped_and_code_left_out() -> None:
    """Hard-wrapped lines are joined; grammar, code, tables, headings and footnotes are no sentences."""
    sentences = [sentence.text for sentence in read_prose(REFERENCE)]
    assert sentences == [
        'The "lock" statement holds a gate closed while its suite runs.',
        "It is opened again whatever happens.",
        "The gate is closed.",
        "The suite is executed, and nothing else.",
        "Open the gate by the given number of metres.",
    ]


def test_signature_stays_with_what_it_describes() -> None:
    """The paragraph below a signature knows it, others do not."""
    signatures = {sentence.text[:8]: sentence.signature for sentence in read_prose(REFERENCE)}
    assert signatures["Open the"] == "gate.open(width, *, slowly=False)"
    assert signatures["The gate"] == ""


@pytest.mark.parametrize(
    ("starts_inside", "expected"),
    [(True, ["This one is whole and stays."]), (False, ["and ends here now.", "This one is whole and stays."])],
)
def test_cut_sentences_at_the_edges_are_left_out(starts_inside: bool, expected: list[str]) -> None:
    """A chunk that begins within a sentence loses that piece, and always the unfinished last one."""
    text = "and ends here now. This one is whole and stays. The last one of them is cut in"
    assert [s.text for s in read_prose(text, starts_inside=starts_inside)] == expected


def test_signature_of_the_chunk_before_holds_on() -> None:
    """Where a document is cut behind a signature, the next chunk still knows it."""
    sentences = read_prose("   Open the gate by the given number.", above="Intro.\n\ngate.open(width)\n")
    assert sentences[0].signature == "gate.open(width)"


def test_best_sentence_is_found_in_a_lower_chunk() -> None:
    """The words of the question weigh more than the rank."""
    quotes = choose(
        "Who pays for the mooring rope?",
        _context(
            "The harbour has a mooring for each ship. It is repaired in spring.",
            "Food is sold at the quay. The mooring rope is paid for by the owner of the ship.",
        ),
    )
    assert any(quote.number == 2 and "paid for by the owner" in quote.text for quote in quotes)


def test_sentence_that_leans_on_another_brings_it() -> None:
    """A pronoun at the start pulls in the sentence before it."""
    quotes = choose(
        "Does it terminate the nearest loop and skip the else clause?",
        _context(
            'The "halt" word is written alone. It terminates the nearest enclosing loop and skips the else clause.'
        ),
    )
    assert [quote.text[:10] for quote in quotes] == ['The "halt"', "It termina"]


def test_equal_sentences_are_said_once() -> None:
    """The same sentence in several chunks is quoted once, from the best of them."""
    text = "A berth is paid for at the harbour office in the morning."
    quotes = choose("Where is a berth paid?", _context(text, text, text))
    assert [(quote.number, quote.text) for quote in quotes] == [(1, text)]


@pytest.mark.parametrize(
    ("text", "rendered"),
    [("It is so.", "It is so [2]."), ("As follows:", "As follows [2]:"), ("No mark", "No mark [2].")],
)
def test_marker_stands_before_the_last_mark(text: str, rendered: str) -> None:
    """A citation belongs to its sentence."""
    assert cited(Quote(2, text)) == rendered


@given(st.text(max_size=400), st.lists(st.text(max_size=600), max_size=4))
def test_any_text_gives_few_sentences_of_its_chunks(question: str, texts: list[str]) -> None:
    """Whatever comes in, at most a handful of sentences come out, each of a chunk that was given."""
    quotes = choose(question, _context(*texts))
    assert len(quotes) <= MAX_SENTENCES
    assert all(1 <= quote.number <= len(texts) for quote in quotes)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('For example, "10**2" returns "100" and so does "100**1" here.', None),
        ("**Bold words** are read without their marks by us.", "Bold words are read without their marks by us."),
        (
            "The left-\n   hand side is evaluated before the other one.",
            "The left-hand side is evaluated before the other one.",
        ),
        (
            "The pre-\nand postconditions of it are checked by us.",
            "The pre- and postconditions of it are checked by us.",
        ),
        ("Use ``obj`` as :class:`Thing` where it is needed.", "Use `obj` as `Thing` where it is needed."),
    ],
)
def test_markup_is_cleaned_and_meaning_kept(text: str, read: str | None) -> None:
    """Marks of emphasis and wrapping go; operators and hyphens that mean something stay."""
    assert [sentence.text for sentence in read_prose(text)] == [read or text]


def test_sentences_of_one_document_keep_its_order() -> None:
    """Chunks of a document are quoted as they stand in it, whatever their ranks."""
    later = Chunk("b", "d", 1, "", "The anchor is stowed below the deck.", start=80, end=120, ordinal=1)
    earlier = Chunk("a", "d", 1, "", "The mooring needs a thick rope.", start=0, end=30, ordinal=0)
    context = tuple(ContextChunk(n, ScoredChunk(chunk, n, 1.0)) for n, chunk in enumerate((later, earlier), start=1))
    assert [
        quote.number for quote in choose("Where is the anchor stowed, and which rope does the mooring need?", context)
    ] == [2, 1]
