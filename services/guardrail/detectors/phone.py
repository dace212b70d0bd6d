"""Finds telephone numbers by the numbering plans of phonenumbers. Pure; one of `catalogue.py`'s detectors."""

from collections.abc import Iterator

import phonenumbers

from servicekit.domain.verdict import Finding, Span
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.linear import LinearPattern

# Digits in groups; phonenumbers' own matcher backtracks and takes seconds on long runs of digits.
_RUN = LinearPattern(r"(?:\+|\()?\d(?:(?:[ .\-/]|\)[ \-]?|[ \-]?\()?\d){6,}(?:(?: ?x| ?ext\.? ?)\d{1,5}\b)?")
_DECIMAL = LinearPattern(r"^\+?\d+\.\d+$")
_CONTEXT = LinearPattern(
    r"\b(?:phone|tel|telephone|mobile|cell|fax|whatsapp"
    r"|(?:call|text|dial|ring|reach)(?: me| us| him| her| them)?(?: back)?(?: at| on|:))\b",
    ignore_case=True,
)
# Dates, dotted quads and social security numbers, written like telephone numbers of some country.
_OTHER = LinearPattern(
    r"^\(?(?:(?:1[89]|2[01])\d{2}[-./ ]\d{1,2}[-./ ]\d{1,2}(?: .*)?"
    r"|\d{1,2}[-./ ]\d{1,2}[-./ ](?:1[89]|2[01])\d{2}(?: .*)?"
    r"|\d{1,3}(?:\.\d{1,3}){3}|\d{3,4}-\d{2}-\d{4})$"
)
_GROUP = LinearPattern(r"\d+")
_CONTEXT_CHARS = 40
_LONGEST = 32
_FEWEST_DIGITS, _MOST_NATIONAL_DIGITS = 7, 12
_MOST_DIGITS = 20  # an extension included
_VAIN_LOOKUPS = 500
_VAIN_GLANCES = 5_000
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
    options_model = None

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Score 0.95 with a country code, 0.8 announced by a word, 0.6 by its written form alone.

        A look-up takes half a millisecond: a text in which 500 look-ups or 5,000 glances were in vain is a table
        of figures or an attack, and is searched no further.
        """
        numbers = _Numbers(subject.text)
        for run in _RUN.spans(subject.text):
            yield from numbers.within(run)


class _Numbers:
    """The search in one text, and how much it may still do in vain."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lookups_left = _VAIN_LOOKUPS
        self._glances_left = _VAIN_GLANCES

    def within(self, run: Span) -> Iterator[Finding]:
        """The numbers of a run of digits, the longest first: blanks stand inside numbers and between them."""
        start = run.start
        while start < run.end and self._glances_left > 0:
            ends = _ends(self._text, start, run.end)
            scored = ((Span(start, end), self._score(Span(start, end))) for end in ends)
            span, score = next((pair for pair in scored if pair[1]), (Span(start, start), 0.0))
            if score:
                yield Finding("pii.phone", score, span, "PHONE", "A telephone number.")
            blank = self._text.find(" ", max(start, span.end), run.end)
            if blank < 0:
                return
            start = blank + 1

    def _score(self, span: Span) -> float:
        self._glances_left -= 1
        written = self._text[span.start : span.end]
        digits = sum(map(str.isdigit, written))
        if not _FEWEST_DIGITS <= digits <= _MOST_DIGITS or _is_glued(self._text, span) or _DECIMAL.first(written):
            return 0.0
        if written.startswith(("+", "00")):
            return 0.95 if _is_possible("+" + written.lstrip("+0")) else 0.0
        announced = _CONTEXT.first(self._text[max(0, span.start - _CONTEXT_CHARS) : span.start])
        if not (announced or _is_written_as_phone(written)) or _OTHER.first(written):
            return 0.0
        return (0.8 if announced else 0.6) if self._is_national(written, digits) else 0.0

    def _is_national(self, written: str, digits: int) -> bool:
        extended = "x" in written
        if self._lookups_left <= 0 or (digits > _MOST_NATIONAL_DIGITS and not extended):
            return False
        valid = any(_is_valid(written, region) for region in _REGIONS)
        self._lookups_left -= not valid
        return valid


def _ends(text: str, start: int, last: int) -> Iterator[int]:
    """Where a number that begins at `start` could end, the farthest first."""
    farthest = min(last, start + _LONGEST)
    if farthest == last:
        yield last
    yield from (place for place in range(farthest - 1, start + _FEWEST_DIGITS - 1, -1) if text[place] == " ")


def _is_glued(text: str, span: Span) -> bool:
    before, after = text[span.start - 1 : span.start], text[span.end : span.end + 2]
    glued_before = before.isalnum() or (bool(before) and before in _GLUE)
    glued_after = after[:1].isalnum() or after[:1] == "_" or (after[:1] in _GLUE and after[1:].isdigit())
    return glued_before or glued_after


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
