"""Finds payment card numbers by issuer, length and check digit. Pure; one of `catalogue.py`'s detectors."""

from collections.abc import Iterator

from pydantic_core import PydanticCustomError
from pydantic_extra_types.payment import PaymentCardBrand, PaymentCardNumber
from servicekit.domain.verdict import Finding, Span

from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.linear import LinearPattern

_DIGITS = LinearPattern(r"\b\d(?:[ \-]?\d){11,18}\b")
_GLUE = frozenset("-._/")
_FEWEST_DISTINCT = 2


class CardDetector:
    """12 to 19 digits, grouped or not, that pass the Luhn check."""

    id = "pii.card"
    version = "1"
    surfaces = EVERY_SURFACE
    redacts = True

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Score 0.95 for a known issuer's number of the right length, 0.5 for a number that only passes Luhn."""
        text = subject.text
        for span in _DIGITS.spans(text):
            digits = text[span.start : span.end].replace(" ", "").replace("-", "")
            if _is_glued(text, span) or len(set(digits)) < _FEWEST_DISTINCT:
                continue
            score = _score(digits)
            if score:
                yield Finding("pii.card", score, span, "CARD", "A payment card number.")


def _is_glued(text: str, span: Span) -> bool:
    before, after = text[span.start - 1 : span.start], text[span.end : span.end + 2]
    return before in _GLUE or (after[:1] in _GLUE and after[1:].isdigit())


def _score(digits: str) -> float:
    try:
        PaymentCardNumber.validate_luhn_check_digit(digits)
        brand = PaymentCardNumber.validate_brand(digits)
    except PydanticCustomError:
        return 0.0
    return 0.5 if brand == PaymentCardBrand.other else 0.95
