"""Finds telephone numbers by the numbering plans of phonenumbers. Pure; one of `catalogue.py`'s detectors."""

from collections.abc import Iterator

import phonenumbers
from servicekit.domain.verdict import Finding, Span

from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.linear import LinearPattern

# Digits in groups; phonenumbers' own matcher backtracks and takes seconds on long runs of digits.
_CANDIDATE = LinearPattern(r"(?:\+|00|\()?\d(?:(?:[ .\-/]|\)[ \-]?|[ \-]?\()?\d){6,16}(?:(?: ?x| ?ext\.? ?)\d{1,5}\b)?")
_DECIMAL = LinearPattern(r"^\+?\d+\.\d+$")
_CONTEXT = LinearPattern(
    r"\b(?:phone|tel|telephone|mobile|cell|fax|whatsapp"
    r"|(?:call|text|dial|ring|reach)(?: me| us| him| her| them)?(?: back)?(?: at| on|:))\b",
    ignore_case=True,
)
# Dates, dotted quads and social security numbers, written like telephone numbers of some country.
_OTHER = LinearPattern(
    r"^\(?(?:\d{4}[-./ ]\d{1,2}[-./ ]\d{1,2}(?: .*)?|\d{1,2}[-./ ]\d{1,2}[-./ ]\d{4}(?: .*)?"
    r"|\d{1,3}(?:\.\d{1,3}){3}|\d{3,4}-\d{2}-\d{4})$"
)
_GROUP = LinearPattern(r"\d+")
_CONTEXT_CHARS = 40
_FEWEST_GROUPS, _SHORTEST_GROUP, _LONGEST_GROUP = 3, 2, 5
_GLUE = frozenset("-._/:=#$€£@\\")
# Where national formats are looked up when the number has no country code: the most telephones first.
_REGIONS = ("US", "GB", "FR", "DE", "AU", "IT", "ES", "CH", "SE", "DK", "NL", "BE", "IN")


class PhoneDetector:
    """International numbers anywhere; national ones where they are written in groups or announced."""

    id = "pii.phone"
    version = "1"
    surfaces = EVERY_SURFACE
    redacts = True

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Score 0.95 with a country code, 0.8 announced by a word, 0.6 by its written form alone."""
        text = subject.text
        for span in _CANDIDATE.spans(text):
            if _is_glued(text, span):
                continue
            score = _score(text, span)
            if score:
                yield Finding("pii.phone", score, span, "PHONE", "A telephone number.")


def _is_glued(text: str, span: Span) -> bool:
    before, after = text[span.start - 1 : span.start], text[span.end : span.end + 2]
    glued_before = before.isalnum() or (bool(before) and before in _GLUE)
    glued_after = after[:1].isalnum() or after[:1] == "_" or (after[:1] in _GLUE and after[1:].isdigit())
    return glued_before or glued_after


def _score(text: str, span: Span) -> float:
    written = text[span.start : span.end]
    if _DECIMAL.first(written):
        return 0.0
    if written.startswith(("+", "00")):
        return 0.95 if _is_possible("+" + written.lstrip("+0")) else 0.0
    announced = _CONTEXT.first(text[max(0, span.start - _CONTEXT_CHARS) : span.start])
    if not (announced or _is_written_as_phone(written)) or _OTHER.first(written):
        return 0.0
    if not any(_is_valid(written, region) for region in _REGIONS):
        return 0.0
    return 0.8 if announced else 0.6


def _is_written_as_phone(written: str) -> bool:
    """Three groups or more, none long, as in `541-714-1388` and `(37) 788-063`."""
    if "/" in written:
        return False
    groups = [written[span.start : span.end] for span in _GROUP.spans(written)]
    return len(groups) >= _FEWEST_GROUPS and all(_SHORTEST_GROUP <= len(group) <= _LONGEST_GROUP for group in groups)


def _is_possible(written: str) -> bool:
    """A country code that exists, and a length that exists there: the plus sign is evidence enough."""
    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(written, None))
    except phonenumbers.NumberParseException:
        return False


def _is_valid(written: str, region: str) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(written, region))
    except phonenumbers.NumberParseException:
        return False
