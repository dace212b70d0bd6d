"""Finds passport numbers that a word announces, and the machine-readable zone. Pure; one of `catalogue.py`'s."""

from collections.abc import Iterator

from servicekit.domain.verdict import Finding, Span
from services.guardrail.detectors.announcing import Announcement
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.linear import LinearPattern

# ICAO 9303: at most nine characters; countries give out one to three letters and six to eight digits, or digits alone.
_NUMBER = LinearPattern(
    r"\b(?:[A-Z]{1,3}[ \-]?\d{5,8}[A-Z]?|\d{7,9}|\d{2}[A-Z]{2}\d{5}|[CFGHJK][0-9CFGHJKLMNPRTVWXYZ]{8})\b"
)
_ZONE = LinearPattern(r"\bP[A-Z<][A-Z]{3}[A-Z<]{39}\s?[A-Z0-9<]{44}")
_ANNOUNCED = Announcement(
    r"passports?(?: ?(?:number|num|no\.?|nr\.?|id|#|card))?|passeport|reisepass(?:nummer)?|passnummer"
    r"|pasaporte|passaporto"
    r"|passaporte|paspoort(?:nummer)?"
)
_FEWEST_DIGITS = 4
_GLUE = frozenset("-./:@$€£")


class PassportDetector:
    """Numbers behind the word passport, in several languages; without it nothing tells them from other numbers."""

    id = "pii.passport"
    version = "1"
    surfaces = EVERY_SURFACE
    redacts = True
    options_model = None

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Score 0.85 announced, 0.95 for a machine-readable zone."""
        text = subject.text
        if "<<" in text:
            for span in _ZONE.spans(text):
                yield Finding("pii.passport.zone", 0.95, span, "PASSPORT", "A passport's machine-readable zone.")
        if not _mentions_passport(text):
            return
        for span in _NUMBER.spans(text):
            digits = sum(map(str.isdigit, text[span.start : span.end]))
            if digits >= _FEWEST_DIGITS and not _is_glued(text, span) and _ANNOUNCED.announces(text, span):
                yield Finding("pii.passport", 0.85, span, "PASSPORT", "A passport number.")


def _mentions_passport(text: str) -> bool:
    lowered = text.lower()
    return any(stem in lowered for stem in ("pass", "pasa", "paspoort"))


def _is_glued(text: str, span: Span) -> bool:
    before, after = text[max(0, span.start - 2) : span.start], text[span.end : span.end + 2]
    labelled = before[-1:] == ":" and before[0].isalpha()
    return (before[-1:] in _GLUE and not labelled) or (after[:1] in _GLUE and after[1:].isdigit())
