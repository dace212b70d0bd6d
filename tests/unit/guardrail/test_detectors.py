"""Tests of the structured detectors: what each finds, where, and what it leaves alone."""

from collections.abc import Iterable

import pytest

from servicekit.domain.verdict import Surface
from services.guardrail.detectors.card import CardDetector
from services.guardrail.detectors.catalogue import all_detectors
from services.guardrail.detectors.detector import Detector, Subject
from services.guardrail.detectors.email import EmailDetector, EmailOptions
from services.guardrail.detectors.groundedness import GroundednessDetector
from services.guardrail.detectors.iban import IbanDetector
from services.guardrail.detectors.ip_address import IpAddressDetector
from services.guardrail.detectors.phone import PhoneDetector
from services.guardrail.detectors.us_ssn import UsSsnDetector
from services.guardrail.normalizing import normalize
from services.guardrail.policy_file import default_policy

POLICY = default_policy(all_detectors())


def found(detector: Detector, text: str, chunk_texts: Iterable[str] = ()) -> list[str]:
    """The pieces of the text that the detector found, by the packaged policy's score."""
    surface = Surface.INPUT if Surface.INPUT in detector.surfaces else next(iter(detector.surfaces))
    subject = Subject(surface, normalize(text), tuple(chunk_texts))
    told = POLICY.detectors[detector.id].min_score
    spans = [finding.span for finding in detector.find(subject) if finding.score >= told]
    return [text[span.start : span.end] for span in map(subject.normalized.to_original, filter(None, spans))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to ada.lovelace@analytical.co.uk, please.", ["ada.lovelace@analytical.co.uk"]),
        ("a+b@c.de;d@e.fr", ["a+b@c.de", "d@e.fr"]),
        ("søren@børge.dk", ["søren@børge.dk"]),
        ("ada@\u200banalytical.org", ["ada@\u200banalytical.org"]),
        ("user@example.com and x@mail.example.org", ["user@example.com", "x@mail.example.org"]),
        ("git@github.com:binnacle/binnacle.git", []),
        ("@decorator def f(a: int): ... x @ y.T", []),
        ("a@" * 2000, []),
    ],
)
def test_email_finds_real_addresses(text: str, expected: list[str]) -> None:
    """Addresses are found whole; a user's may be of a domain that is reserved for examples."""
    assert found(EmailDetector(), text) == expected


@pytest.mark.parametrize("surface", [Surface.RETRIEVED, Surface.OUTPUT])
def test_examples_in_documents_and_answers_are_left_alone(surface: Surface) -> None:
    """Addresses of reserved domains are documentation there, unless the policy's options say otherwise."""
    normalized = normalize("user@example.com and x@mail.example.org and root@host.localdomain")
    assert not list(EmailDetector().find(Subject(surface, normalized)))
    everywhere = EmailOptions(reserved_domains=tuple(Surface))
    assert len(list(EmailDetector().find(Subject(surface, normalized, options=everywhere)))) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ring +44 7911 123456 now", ["+44 7911 123456"]),
        ("(415) 555-2671 is mine", ["(415) 555-2671"]),
        ("Call 541-714-1388 2 times", ["541-714-1388"]),
        ("541-714-1388 212-456-7890", ["541-714-1388", "212-456-7890"]),
        ("phone: 4157142671", ["4157142671"]),
        ("4157142671 rows were read", []),
        ("on 2024-10-05 12:34 and 05.10.2024", []),
        ("pi is +3.14159265 and Decimal('+35236450.6')", []),
        ("from 192.0.2.128/25 to 10.20.30.40", []),
        ("'01  012 0123    01234'", []),
        ("1 " * 3000, []),
        ("my number is 555 0123, or (555) 123-4567", ["555 0123", "(555) 123-4567"]),
        ("001-541-714-1388x123 or 541.714.1388 ext 5", ["001-541-714-1388x123", "541.714.1388 ext 5"]),
        ("Büro 089/12345678, mobil 0170-1234567", ["089/12345678", "0170-1234567"]),
        ("781 1704 (fax)", ["781 1704"]),
        ("Tel:0301234567", ["0301234567"]),
        ("(see pages 381-397 (1950), 218-234 (1945))", []),
        ("Windows Phone 10.0.14393 and phone 2018-2019", []),
        ("my card is 4111 1111 1111 1111, call me", []),
        ("my NHS number is 943 476 5919", []),
        ("550e8400-e29b-41d4-a716-446655440000 and ISBN 978-3-16-148410-0", []),
    ],
)
def test_phone_finds_numbers_written_as_such(text: str, expected: list[str]) -> None:
    """International and grouped numbers are found, dates, decimals and addresses are not."""
    assert found(PhoneDetector(), text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("my card 4111 1111 1111 1111.", ["4111 1111 1111 1111"]),
        ("room 2024 4111 1111 1111 1111 2 5555555555554444", ["4111 1111 1111 1111", "5555555555554444"]),
        ("4111 1111 1111 1111 5555 5555 5555 4444", ["4111 1111 1111 1111", "5555 5555 5555 4444"]),
        ("5555-5555-5555-4444", ["5555-5555-5555-4444"]),
        ("\uff14111111111111111", ["\uff14111111111111111"]),
        ("4111 1111 1111 1112", []),
        ("000000000000000000", []),
        ("sha 20241005123412341", []),
        ("my card number is 4111 1111 1111 1112", ["4111 1111 1111 1112"]),
    ],
)
def test_card_checks_issuer_and_digit(text: str, expected: list[str]) -> None:
    """Only numbers that pass the Luhn check are found, full-width digits too."""
    assert found(CardDetector(), text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pay to DE89 3704 0044 0532 0130 00 today", ["DE89 3704 0044 0532 0130 00"]),
        ("gb82west12345698765432", ["gb82west12345698765432"]),
        ("DE89 3704 0044 0532 0130 01", []),
        ("my IBAN is DE89 3704 0044 0532 0130 01 now", ["DE89 3704 0044 0532 0130 01"]),
        ("GB82 is a road and AB12 another one of them all", []),
    ],
)
def test_iban_checks_country_and_digits(text: str, expected: list[str]) -> None:
    """A number ends where its check digits say, not where letters end."""
    assert found(IbanDetector(), text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SSN 514-69-0360", ["514-69-0360"]),
        ("000-12-3456 666-12-3456 900-12-3456 123-00-4567 123-45-0000", []),
        ("078-05-1120 is an advertisement", []),
        ("part 514-69-0360-77", []),
        ("514690360", []),
        ("my social security number is 514690360", ["514690360"]),
    ],
)
def test_ssn_follows_the_rules_of_issue(text: str, expected: list[str]) -> None:
    """Numbers that were never issued are left alone."""
    assert found(UsSsnDetector(), text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from 106.31.73.20:80, then", []),
        ("from 106.31.73.20, then", ["106.31.73.20"]),
        ("at 2a00:1450:4001:81b::200e today", ["2a00:1450:4001:81b::200e"]),
        ("127.0.0.1 10.1.2.3 192.168.1.1 192.0.2.7 ::1 fe80::1 2001:db8::1 255.255.255.255", []),
        ("my IP address is 192.168.1.7", ["192.168.1.7"]),
        ("999.1.1.1 1.2.3.4.5 v1.2.3.4-rc a[::2] b[1::2] std::vector ::f", []),
    ],
)
def test_ip_address_finds_public_ones(text: str, expected: list[str]) -> None:
    """Private, reserved and documentation addresses, slices and scopes are left alone."""
    assert found(IpAddressDetector(), text) == expected


def test_groundedness_names_the_unsupported_sentence() -> None:
    """A sentence whose number no chunk holds is found with its span and reason."""
    chunk = "The dict preserves insertion order since Python 3.7. Keys must be hashable."
    answer = "Keys must be hashable [1]. The dict preserves insertion order since Python 3.5 [1]."
    subject = Subject(Surface.OUTPUT, normalize(answer), (chunk,))
    (finding,) = GroundednessDetector().find(subject)
    assert finding.rule == "groundedness.number"
    assert finding.span is not None
    assert answer[finding.span.start : finding.span.end].startswith("The dict preserves")


def test_groundedness_without_chunks_says_nothing() -> None:
    """Where there is nothing to compare with, no sentence is called unsupported."""
    assert not list(GroundednessDetector().find(Subject(Surface.OUTPUT, normalize("Bees fly."))))


def test_catalogue_ids_are_unique_and_versioned() -> None:
    """Policies and verdicts name detectors by id: no two share one, each has a version and a surface."""
    detectors = all_detectors()
    assert len({detector.id for detector in detectors}) == len(detectors)
    assert all(detector.version and detector.surfaces for detector in detectors)


@pytest.mark.parametrize("detector", all_detectors(), ids=lambda detector: detector.id)
@pytest.mark.parametrize("text", ["", " ", "\n", "\x00", "🏴‍☠️", "a" * 5000, "\u0301" * 500, "[EMAIL_1]"])
def test_detectors_find_nothing_in_odd_texts(detector: Detector, text: str) -> None:
    """Empty, blank, binary, combining and already redacted texts yield nothing and raise nothing."""
    assert found(detector, text, ["some chunk"] if detector.id == "groundedness" else ()) == (
        [text] if detector.id == "groundedness" and text.strip(" \n\x00🏴‍☠️\u0301") else []
    )
