"""Properties of the detectors of personal data: valid numbers are found, a changed digit is told, spans are whole."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schwifty import IBAN

from servicekit.domain.verdict import Surface
from services.guardrail.detectors.card import CardDetector
from services.guardrail.detectors.catalogue import all_detectors
from services.guardrail.detectors.detector import Detector, Subject
from services.guardrail.detectors.iban import IbanDetector
from services.guardrail.detectors.national.check_digits import iso_7064_11_10, luhn, verhoeff
from services.guardrail.detectors.national_id import NationalIdDetector
from services.guardrail.detectors.phone import PhoneDetector
from services.guardrail.normalizing import normalize

PERSONAL = [detector for detector in all_detectors() if detector.id.startswith("pii.")]
CERTAIN = 0.75
DIGIT = st.sampled_from("0123456789")
PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "4111 1111 1111 1111",
                "ada@b.org",
                "+44 7911 123456",
                "DE89370400440532013000",
                "\u200b",
                "e\u0301",
                "👩‍🚀",
            ]
        ),
        st.sampled_from(
            ["SSN 514-69-0360", "Dr. Zoë Ångström", "born 1/2/1990", "https://a.org/ü", "account no. 12345678"]
        ),
        st.text(max_size=12),
    ),
    max_size=6,
)


def certain(detector: Detector, text: str) -> list[str]:
    """What the detector finds in the text and is sure of."""
    findings = detector.find(Subject(Surface.INPUT, normalize(text)))
    spans = [finding.span for finding in findings if finding.score >= CERTAIN]
    return [text[span.start : span.end] for span in spans if span]


def with_check(body: str, passes: object) -> str:
    """The body and the digit that makes it pass."""
    assert callable(passes)
    return next(f"{body}{digit}" for digit in "0123456789" if passes(f"{body}{digit}"))


def changed(number: str, place: int, by: int) -> str:
    """The number with one of its digits another."""
    place %= len(number)
    return f"{number[:place]}{(int(number[place]) + by) % 10}{number[place + 1 :]}"


@given(st.text(DIGIT, min_size=14, max_size=14), st.integers(0, 15), st.integers(1, 9))
def test_cards_are_found_and_a_changed_digit_is_told(body: str, place: int, by: int) -> None:
    """A Visa number is found in blocks and in groups; with one digit changed it is none."""
    number = with_check(f"4{body}", luhn)
    grouped = " ".join(number[start : start + 4] for start in range(0, 16, 4))
    assert certain(CardDetector(), f"pay with {number} now") == [number]
    assert certain(CardDetector(), f"pay with {grouped} now") == [grouped]
    assert certain(CardDetector(), f"pay with {changed(number, place, by)} now") == []


@given(st.integers(0, 10**18 - 1), st.integers(0, 19), st.integers(1, 9))
def test_ibans_are_found_and_a_changed_digit_is_told(bban: int, place: int, by: int) -> None:
    """A German number is found; with one digit changed it is none."""
    number = str(IBAN.from_bban("DE", f"{bban:018}"))
    wrong = f"DE{changed(number[2:], place, by)}"
    assert certain(IbanDetector(), f"to {number} today") == [number]
    assert certain(IbanDetector(), f"to {wrong} today") == []


@given(st.text(DIGIT, min_size=10, max_size=10), st.integers(0, 11), st.integers(1, 9))
def test_verhoeff_tells_every_changed_digit(body: str, place: int, by: int) -> None:
    """Aadhaar's check digit tells one wrong digit wherever it stands."""
    number = with_check(f"2{body}", verhoeff)
    assert verhoeff(number)
    assert not verhoeff(changed(number, place, by))


@given(st.text(DIGIT, min_size=9, max_size=9), st.integers(0, 10), st.integers(1, 9))
def test_hybrid_check_tells_every_changed_digit(body: str, place: int, by: int) -> None:
    """ISO 7064's mod 11, 10 tells one wrong digit wherever it stands."""
    number = with_check(f"1{body}", iso_7064_11_10)
    assert not iso_7064_11_10(changed(number, place, by))


@given(PIECES)
def test_spans_lie_in_the_text_and_split_no_character(pieces: list[str]) -> None:
    """Every span, led back to the original, is inside of it and begins and ends between clusters."""
    text = " ".join(pieces)
    subject = Subject(Surface.INPUT, normalize(text))
    for detector in PERSONAL:
        for finding in detector.find(subject):
            assert finding.span is not None
            span = subject.normalized.to_original(finding.span)
            assert 0 <= span.start < span.end <= len(text)
            assert not unicodedata.combining(text[span.start])
            assert span.end == len(text) or not unicodedata.combining(text[span.end])


@given(
    st.text(DIGIT, min_size=14, max_size=14), st.sampled_from(["call me at ", "phone: ", "my account number is ", ""])
)
def test_the_most_specific_kind_wins(body: str, lead: str) -> None:
    """A card is no telephone number and no national id, whatever stands before it."""
    number = with_check(f"4{body}", luhn)
    grouped = " ".join(number[start : start + 4] for start in range(0, 16, 4))
    assert certain(PhoneDetector(), lead + grouped) == []
    assert certain(NationalIdDetector(), lead + grouped) == []


@pytest.mark.parametrize("detector", PERSONAL, ids=lambda detector: detector.id)
@pytest.mark.parametrize(
    "piece", ["1", "1 ", "a@", "541 714 1388 ", "4111 ", "DE89 ", "1.", "ab:", "account number 1 "]
)
def test_hostile_texts_are_searched_in_bounds(detector: Detector, piece: str) -> None:
    """The longest text that is taken, of nothing but beginnings, ends: in time that grows with its length only."""
    text = (piece * 65_536)[:65_536]
    list(detector.find(Subject(Surface.INPUT, normalize(text))))
