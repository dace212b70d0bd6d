"""Finds international bank account numbers by country, length and check digits. Pure; one of `catalogue.py`'s."""

from collections.abc import Iterator

from schwifty import IBAN
from schwifty.exceptions import SchwiftyException
from schwifty.registry import get_iban_spec

from servicekit.domain.verdict import Finding, Span
from services.guardrail.detectors.announcing import Announcement
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.linear import LinearPattern

_CANDIDATE = LinearPattern(r"\b[a-z]{2}\d{2}(?:[ \-]?[a-z0-9]){11,30}\b", ignore_case=True)
_ANNOUNCED = Announcement(r"iban")
_SHORTEST = 15
_MISTYPED = 0.7


class IbanDetector:
    """ISO 13616: country code, check digits, account number; printed in groups or not."""

    id = "pii.iban"
    version = "2"
    surfaces = EVERY_SURFACE
    redacts = True
    options_model = None

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Score 0.99 where length and check digits are right, 0.7 for a mistyped number that is announced."""
        for span in _CANDIDATE.spans(subject.text):
            end, score = _valid_end(subject.text, span), 0.99
            if not end and _ANNOUNCED.announces(subject.text, span):
                end, score = _mistyped_end(subject.text, span), _MISTYPED
            if end:
                yield Finding("pii.iban", score, Span(span.start, end), "IBAN", "A bank account number (IBAN).")


def _valid_end(text: str, span: Span) -> int:
    """Where the number ends: a candidate in groups may have run on into the words behind it."""
    candidate = text[span.start : span.end]
    ends = [len(candidate)]
    ends += [i for i in range(len(candidate) - 1, _SHORTEST - 1, -1) if candidate[i] in " -"]
    return next((span.start + end for end in ends if _is_valid(candidate[:end])), 0)


def _mistyped_end(text: str, span: Span) -> int:
    """Where a number of its country's length ends, whatever its check digits; 0: there is no such country."""
    candidate = text[span.start : span.end]
    try:
        length = get_iban_spec(candidate[:2].upper()).iban_length
    except SchwiftyException:
        return 0
    places = [place for place, char in enumerate(candidate) if char.isalnum()]
    return span.start + places[length - 1] + 1 if length <= len(places) else 0


def _is_valid(candidate: str) -> bool:
    try:
        IBAN(candidate.replace("-", ""))
    except SchwiftyException:
        return False
    return True
