"""Finds telephone numbers by the numbering plans of phonenumbers. Pure; one of `catalogue.py`'s detectors."""

from collections.abc import Iterator

from servicekit.domain.verdict import Finding, Span
from services.guardrail.detectors.announcing import Announcement
from services.guardrail.detectors.card import CardDetector
from services.guardrail.detectors.claims import Claims
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.detectors.iban import IbanDetector
from services.guardrail.detectors.ip_address import IpAddressDetector
from services.guardrail.detectors.national_id import NationalIdDetector
from services.guardrail.detectors.phone_forms import (
    count_digits,
    is_american,
    is_glued,
    is_grouped,
    is_other,
    is_possible,
    is_trunk,
    is_valid_somewhere,
    tidied,
)
from services.guardrail.linear import LinearPattern

# Digits in groups; phonenumbers' own matcher backtracks and takes seconds on long runs of digits.
_RUN = LinearPattern(
    r"(?:\+ ?\(?|\()?\d(?:(?:[ .\-/\x{A0}\x{2010}-\x{2013}]|[ \-.]?\)[ \-.]?|[ \-]?\()?\d){6,}"
    r"(?:(?: ?x\.? ?|,? ?ext(?:ension)?\.? ?|#)\d{1,6}\b)?",
    ignore_case=True,
)
_ANNOUNCED = Announcement(
    r"(?:tele)?phones?|tel|mobile|mob|cell(?:phone)?|fax|telefax|landline|hotline|whats ?app|sms|pager|voicemail"
    r"|(?:contact|phone|mobile|home|work|office|emergency|registered|callback|my|his|her|our|their|your|direct)"
    r" (?:number|num|no\.|nr\.?|line)"
    r"|(?:call|text|dial|ring|reach|phone|contact|answering|message)(?:ing|ed)?"
    r"(?: me| us| him| her| them| you)?(?: back| directly)?(?: at| on|:)|dial|telefon|telefono|teléfono|handy|portable"
    r"|(?:desk|office|home|work|main|direct|toll[ \-]free|day|evening):|tél|téléphone|móvil|celular|telefone"
    r"|puhelin|numéro|rufnummer",
    behind=r"(?:office|fax|mobile|cell|tel|phone|landline|toll[ \-]free|(?:home|work|main|direct|[chmow])\))",
)
_LONGEST = 32
_FEWEST_DIGITS, _MOST_NATIONAL_DIGITS = 7, 13
_MOST_DIGITS = 21  # an extension included
_VAIN_LOOKUPS = 500
_VAIN_GLANCES = 5_000
_CERTAIN = 0.75  # of the more specific kinds


class PhoneDetector:
    """International numbers anywhere; national ones where they are written in groups or announced."""

    id = "pii.phone"
    version = "2"
    surfaces = EVERY_SURFACE
    redacts = True
    options_model = None

    def __init__(self) -> None:
        self._stronger = (CardDetector(), IbanDetector(), IpAddressDetector(), NationalIdDetector())

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Score 0.95 with a country code, 0.8 announced by a word, 0.6 by its written form alone.

        A look-up takes half a millisecond: a text in which 500 look-ups or 5,000 glances were in vain is a table
        of figures or an attack, and is searched no further.
        """
        numbers = _Numbers(subject.text)
        claims: Claims | None = None
        for run in _RUN.spans(subject.text):
            for span, score in numbers.within(run):
                claims = claims or Claims(subject, self._stronger, min_score=_CERTAIN)
                if not claims.touch(span):
                    yield Finding("pii.phone", score, span, "PHONE", "A telephone number.")


class _Numbers:
    """The search in one text, and how much it may still do in vain."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lookups_left = _VAIN_LOOKUPS
        self._glances_left = _VAIN_GLANCES

    def within(self, run: Span) -> Iterator[tuple[Span, float]]:
        """The numbers of a run of digits, the longest first: blanks stand inside numbers and between them."""
        start = run.start
        while start < run.end and self._glances_left > 0:
            candidates = (tidied(self._text, Span(start, end)) for end in _ends(self._text, start, run.end))
            scored = ((span, self._score(span)) for span in candidates)
            span, score = next((pair for pair in scored if pair[1]), (Span(start, start), 0.0))
            if score:
                yield span, score
            blank = self._text.find(" ", max(start, span.end), run.end)
            if blank < 0:
                return
            start = blank + 1

    def _score(self, span: Span) -> float:
        self._glances_left -= 1
        written = self._text[span.start : span.end]
        digits = count_digits(written)
        if not _FEWEST_DIGITS <= digits <= _MOST_DIGITS or is_glued(self._text, span) or is_other(written):
            return 0.0
        if written.startswith(("+", "00")):
            return 0.95 if is_possible(written) else 0.0
        written_so = is_grouped(written) or is_trunk(written, digits)
        if is_american(written):
            return 0.8 if _ANNOUNCED.announces(self._text, span) else 0.6
        announced = _ANNOUNCED.announces(self._text, span)
        if not (announced or written_so):
            return 0.0
        if self._is_national(written, digits):
            return 0.8 if announced else 0.6
        return 0.7 if announced and digits <= _MOST_NATIONAL_DIGITS else 0.0

    def _is_national(self, written: str, digits: int) -> bool:
        extended = "x" in written.lower() or "#" in written
        if self._lookups_left <= 0 or (digits > _MOST_NATIONAL_DIGITS and not extended):
            return False
        valid = is_valid_somewhere(written)
        self._lookups_left -= not valid
        return valid


def _ends(text: str, start: int, last: int) -> Iterator[int]:
    """Where a number that begins at `start` could end, the farthest first."""
    farthest = min(last, start + _LONGEST)
    if farthest == last:
        yield last
    yield from (place for place in range(farthest - 1, start + _FEWEST_DIGITS - 1, -1) if text[place] == " ")
