"""Finds United States social security numbers. Pure; one of `catalogue.py`'s detectors."""

from collections.abc import Iterator

from servicekit.domain.verdict import Finding, Span
from services.guardrail.detectors.announcing import Announcement
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.linear import LinearPattern

_NUMBER = LinearPattern(r"\b\d{3}-\d{2}-\d{4}\b|\b\d{3} \d{2} \d{4}\b|\b\d{9}\b")
_ANNOUNCED = Announcement(r"ssns?|s\.s\.n\.?|social(?: security)?(?: (?:number|no\.?|num|#))?|ss ?#|soc\. ?sec\.?")
_GLUE = frozenset("-./+:=")
_HIGHEST_AREA = 899
# Published in advertisements and used as samples since (SSA, "Social Security Cards Issued by Woolworth").
_SAMPLES = frozenset({"078051120", "219099999", "123456789"})


class UsSsnDetector:
    """`AAA-GG-SSSS` that the administration could have issued: areas 001 to 899 but 666, no group or serial of 0."""

    id = "pii.us_ssn"
    version = "2"
    surfaces = EVERY_SURFACE
    redacts = True
    options_model = None

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Score 0.9 with dashes or announced by a word, 0.6 with blanks; nine digits in a row only if announced.

        An announced number may be one of the samples, and no plan is asked: who types it means it.
        """
        text = subject.text
        for span in _NUMBER.spans(text):
            written = text[span.start : span.end]
            if _is_glued(text, span):
                continue
            issuable = _is_issuable(written.replace("-", "").replace(" ", ""))
            if _ANNOUNCED.announces(text, span) and written[:3] != "000":
                yield _finding(span, 0.9)
            elif issuable and not written.isdigit():
                yield _finding(span, 0.9 if "-" in written else 0.6)


def _finding(span: Span, score: float) -> Finding:
    return Finding("pii.us_ssn", score, span, "SSN", "A US social security number.")


def _is_glued(text: str, span: Span) -> bool:
    before, after = text[max(0, span.start - 2) : span.start], text[span.end : span.end + 2]
    labelled = before[-1:] in {":", "="} and before[0].isalpha()
    return (before[-1:] in _GLUE and not labelled) or (after[:1] in _GLUE and after[1:].isalnum())


def _is_issuable(digits: str) -> bool:
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return (
        area not in {"000", "666"}
        and int(area) <= _HIGHEST_AREA
        and group != "00"
        and serial != "0000"
        and digits not in _SAMPLES
    )
