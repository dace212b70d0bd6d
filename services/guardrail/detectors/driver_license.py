"""Finds driving licence numbers that a word announces. Pure; one of `catalogue.py`'s detectors."""

from collections.abc import Iterator

from servicekit.domain.verdict import Finding
from services.guardrail.detectors.announcing import Announcement
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.linear import LinearPattern

# States give out from five to nineteen characters, most of them digits; the United Kingdom `MORGA753116SM9IJ 35`.
_NUMBER = LinearPattern(
    r"\b(?:[A-Z9]{5}\d{6}[A-Z9]{2}\d[A-Z]{2}(?: ?\d{2})?|[A-Z]{0,3}[ \-]?\d{3,5}(?:-\d{2,6}){1,3}"
    r"|[A-Z]{0,3}\d{5,14}[A-Z]{0,2}|[A-Z]\d{2,3}[ \-]\d{3}[ \-]\d{2,3}(?:[ \-]\d{3}){0,2}|\d{2}[A-Z]{3}\d{5}"
    r"|[A-Z0-9]{2,4}\d{4,10}[A-Z0-9]{0,4})\b"
)
_ANNOUNCED = Announcement(
    r"(?:driver|driving|operator)[\x{2019}']?s?[\x{2019}']?[ \-]+(?:licen[cs]e|permit|id)"
    r"|licen[cs]e (?:number|no\.?|num|#)|\bdln?(?: ?#|:| no\.?| number)"
    r"|d\.l\.|dl|führerschein(?:nummer)?|permis de conduire|carn[eé] de conducir|patente(?: di guida)?|rijbewijs"
)
_STEMS = ("licen", "permit", "dl", "d.l.", "führerschein", "permis", "conducir", "patente", "rijbewijs", "driv")
_FEWEST_DIGITS = 4


class DriverLicenseDetector:
    """Numbers behind a driving licence's name, in several languages."""

    id = "pii.driver_license"
    version = "1"
    surfaces = EVERY_SURFACE
    redacts = True
    options_model = None

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Every announced number, score 0.85."""
        text = subject.text
        lowered = text.lower()
        if not any(stem in lowered for stem in _STEMS):
            return
        for span in _NUMBER.spans(text):
            digits = sum(map(str.isdigit, text[span.start : span.end]))
            glued = text[span.start - 1 : span.start] in {"-", ".", "/", "@"} or text[span.end : span.end + 1] == "@"
            if digits >= _FEWEST_DIGITS and not glued and _ANNOUNCED.announces(text, span):
                yield Finding("pii.driver_license", 0.85, span, "LICENSE", "A driving licence number.")
