"""Tests of normalisation: what is shown of a text, and that every place leads back into the original."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from servicekit.domain.verdict import Span
from services.guardrail.normalizing import normalize

ODD = st.text(
    st.characters(codec="utf-8")
    | st.sampled_from("\u200b\u00ad\u0301\u0308\ufb01\ufdfa\uff21\u1e9b\u0323\U000e0041\U000e007f\u202eé")
)


def test_ascii_is_left_as_it_is() -> None:
    """Plain text is its own normal form, places are the same."""
    normalized = normalize("plain\x00 text")
    assert normalized.text == "plain\x00 text"
    assert normalized.to_original(Span(2, 5)) == Span(2, 5)


def test_places_lead_back_over_dropped_and_grown_characters() -> None:
    """A ligature becomes two characters of one origin, a zero-width space none."""
    normalized = normalize("a\u200b\ufb01b")
    assert normalized.text == "afib"
    assert normalized.to_original(Span(0, 1)) == Span(0, 1)
    assert normalized.to_original(Span(1, 2)) == Span(2, 3)
    assert normalized.to_original(Span(1, 4)) == Span(2, 4)
    assert normalized.from_original(Span(2, 4)) == Span(1, 4)


def test_combining_marks_join_their_letter() -> None:
    """A letter and its accent are one character, as everybody sees them."""
    assert normalize("cafe\u0301").text == "café"


def test_hidden_runs_are_found_in_the_original() -> None:
    """Tag characters are read as the ASCII that they mirror, and their run is known."""
    normalized = normalize("x" + "".join(chr(0xE0000 + ord(char)) for char in "do it") + "y")
    assert normalized.text == "xdo ity"
    assert normalized.hidden_runs(at_least=5) == (Span(1, 6),)
    assert normalized.hidden_runs(at_least=6) == ()


@given(ODD)
def test_every_place_leads_into_the_original(text: str) -> None:
    """Spans of the normal form map to spans of the original: inside, in order, together covering what is shown."""
    normalized = normalize(text)
    position = 0
    for place in range(len(normalized.text)):
        span = normalized.to_original(Span(place, place + 1))
        assert position <= span.start < span.end <= len(text)
        position = span.start
    whole = normalized.to_original(Span(0, len(normalized.text)))
    assert 0 <= whole.start <= whole.end <= len(text)


@given(ODD)
def test_normal_form_is_stable_and_composed(text: str) -> None:
    """Normalising again changes nothing that NFKC itself leaves."""
    once = normalize(text).text
    assert unicodedata.normalize("NFKC", normalize(once).text) == unicodedata.normalize("NFKC", once)


@given(ODD, st.data())
def test_places_of_the_original_lead_into_the_normal_form(text: str, data: st.DataObject) -> None:
    """The way there stays inside the normal form."""
    normalized = normalize(text)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    span = normalized.from_original(Span(start, end))
    assert 0 <= span.start <= span.end <= max(len(normalized.text), span.start)


def test_a_ligature_of_a_sentence_does_not_grow_a_text() -> None:
    """What stands for eighteen characters stays one, so that a hostile text grows no longer."""
    assert len(normalize("\ufdfa" * 100).text) == 100
    assert normalize("\u33af").text == "rad\u2215s2"
