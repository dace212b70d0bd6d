"""Finds payment card numbers by issuer, length and check digit. Pure; one of `catalogue.py`'s detectors."""

from collections.abc import Iterator

from pydantic_core import PydanticCustomError
from pydantic_extra_types.payment import PaymentCardBrand, PaymentCardNumber

from servicekit.domain.verdict import Finding, Span
from services.guardrail.detectors.announcing import Announcement
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.detectors.national.check_digits import luhn
from services.guardrail.linear import LinearPattern

# In one block, or in the groups that are embossed: 4-4-4-4(-3) and American Express' 4-6-5.
_NUMBER = LinearPattern(
    r"\b(?:\d{12,19}|\d{4}[ \-]\d{4}[ \-]\d{4}[ \-]\d{1,4}(?:[ \-]\d{1,3})?|\d{4}[ \-]\d{6}[ \-]\d{4,5})\b"
)
_ANNOUNCED = Announcement(
    r"(?:credit|debit|payment|bank|charge)?[ \-]?cards?|visa|master ?card|amex|american express|maestro|discover|diners"
    r"|jcb|cc|pan:|kreditkarte|carte (?:bancaire|bleue)|tarjeta"
)
_SURE, _CONFIRMED, _MISTYPED, _UNSURE = 0.95, 0.9, 0.7, 0.5
_MISTYPED_DIGITS = range(14, 20)
_SHORTEST_GROUPED, _LONGEST = 16, 48
_GLUE = frozenset("-._/")
_FEWEST_DISTINCT, _FEWEST_DIGITS = 2, 12


class CardDetector:
    """12 to 19 digits, in one block or in groups, that pass the Luhn check."""

    id = "pii.card"
    version = "2"
    surfaces = EVERY_SURFACE
    redacts = True
    options_model = None

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Score 0.95 for a known issuer's number of the right length, 0.5 for a number that only passes Luhn.

        Where a word announces a card, 0.9 for the latter, and 0.7 for a number with a wrong digit: a mistyped card
        number still tells most of it.
        """
        text = subject.text
        mentioned: bool | None = None
        done = 0
        for place in _NUMBER.spans(text):
            # A group that stands before a number, or behind it, may have been taken for one of its own.
            start = max(place.start, done)
            while start < place.end:
                span, score = _from(text, start)
                if score < _SURE:
                    mentioned = _ANNOUNCED.mentioned(text) if mentioned is None else mentioned
                    score = _announced_score(text, span, score) if mentioned else score
                if score:
                    yield Finding("pii.card", score, span, "CARD", "A payment card number.")
                if score >= _SURE:
                    done = start = span.end
                else:
                    start = _next_group(text, span)


def _from(text: str, start: int) -> tuple[Span, float]:
    """The first number that begins at `start` or soon after, and its score; or what to skip, and 0."""
    found = _NUMBER.first(text[start : start + _LONGEST])
    if not found:
        return Span(start, start + _LONGEST), 0.0
    span = Span(start + found.start, start + found.end)
    scored = [(Span(span.start, end), _score(text, Span(span.start, end))) for end in _ends(text, span)]
    return max(scored, key=lambda pair: pair[1])


def _next_group(text: str, span: Span) -> int:
    """By chance one number in ten passes: what is not sure may hide another that begins inside of it."""
    ends = (text.find(" ", span.start, span.end), text.find("-", span.start, span.end))
    return min((end + 1 for end in ends if end >= 0), default=span.end)


def _ends(text: str, span: Span) -> tuple[int, ...]:
    """All of it, or all but a last group that belongs to what follows."""
    last_group = max(text.rfind(" ", span.start, span.end), text.rfind("-", span.start, span.end))
    return (span.end,) if last_group - span.start < _SHORTEST_GROUPED else (span.end, last_group)


def _is_glued(text: str, span: Span) -> bool:
    before, after = text[span.start - 1 : span.start], text[span.end : span.end + 2]
    return before in _GLUE or (after[:1] in _GLUE and after[1:].isdigit())


def _announced_score(text: str, span: Span, score: float) -> float:
    digits = _digits(text, span)
    if not digits.isdigit() or _is_glued(text, span) or len(set(digits)) < _FEWEST_DISTINCT:
        return score
    if not _ANNOUNCED.announces(text, span):
        return score
    return _CONFIRMED if score else _MISTYPED * (len(digits) in _MISTYPED_DIGITS)


def _digits(text: str, span: Span) -> str:
    return text[span.start : span.end].replace(" ", "").replace("-", "")


def _score(text: str, span: Span) -> float:
    digits = _digits(text, span)
    if len(digits) < _FEWEST_DIGITS or not luhn(digits) or len(set(digits)) < _FEWEST_DISTINCT or _is_glued(text, span):
        return 0.0
    try:
        brand = PaymentCardNumber.validate_brand(digits)
    except PydanticCustomError:
        return 0.0
    return _UNSURE if brand == PaymentCardBrand.other else _SURE
