"""Finds days of birth that a word announces. Pure; one of `catalogue.py`'s detectors."""

from collections.abc import Iterator

from servicekit.domain.verdict import Finding
from services.guardrail.detectors.announcing import Announcement
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.linear import LinearPattern

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?"
    r"|dec(?:ember)?|januar|februar|märz|mai|juni|juli|oktober|dezember|janvier|février|mars|avril|juin|juillet|août"
    r"|septembre|octobre|novembre|décembre|enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre"
    r"|noviembre|diciembre)\.?"
)
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_NUMBER_MONTH = r"(?:0?[1-9]|1[0-2])"
_YEAR = r"(?:(?:1[89]|20)\d{2}|\d{2})"
_DATE = LinearPattern(
    rf"\b(?:(?:1[89]|20)\d{{2}}[-/.]{_NUMBER_MONTH}[-/.]{_DAY}|{_DAY}[-/.]{_NUMBER_MONTH}[-/.]{_YEAR}"
    rf"|{_NUMBER_MONTH}[-/.]{_DAY}[-/.]{_YEAR}|{_DAY}(?:st|nd|rd|th|\.)?(?: of| de)? {_MONTH}(?: de)?,? {_YEAR}"
    rf"|{_MONTH} {_DAY}(?:st|nd|rd|th)?,? {_YEAR})\b",
    ignore_case=True,
)
_PERSONAL = Announcement(
    r"d\.?o\.?b\.?|date of birth|birth ?date|birthday|birth ?day|(?:i was|i am|i'm) born(?: on| in)?|my birth"
    r"|geburtsdatum|geburtstag|(?:ich bin|wurde) (?:am )?geboren|date de naissance|(?:je suis )?née? le"
    r"|fecha de nacimiento|data di nascita|geboortedatum|data de nascimento"
)
_BORN = Announcement(r"born(?: on)?|b\.|geboren(?: am)?")


class DateOfBirthDetector:
    """Dates behind "date of birth", "birthday", "I was born", in several languages."""

    id = "pii.date_of_birth"
    version = "1"
    surfaces = EVERY_SURFACE
    redacts = True
    options_model = None

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Score 0.9 where somebody's day of birth is stated, 0.5 where it is told of one, as biographies do."""
        text = subject.text
        for span in _DATE.spans(text):
            if _PERSONAL.announces(text, span):
                yield Finding("pii.date_of_birth", 0.9, span, "BIRTH", "A date of birth.")
            elif _BORN.announces(text, span):
                yield Finding("pii.date_of_birth.told", 0.5, span, "BIRTH", "A date of birth.")
