"""Finds United States social security numbers. Pure; one of `catalogue.py`'s detectors."""

from collections.abc import Iterator

from servicekit.domain.verdict import Finding
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.linear import LinearPattern

_NUMBER = LinearPattern(r"\b\d{3}-\d{2}-\d{4}\b|\b\d{3} \d{2} \d{4}\b")
_GLUE = frozenset("-./+:")
_HIGHEST_AREA = 899
# Published in advertisements and used as samples since (SSA, "Social Security Cards Issued by Woolworth").
_SAMPLES = frozenset({"078051120", "219099999", "123456789"})


class UsSsnDetector:
    """`AAA-GG-SSSS` that the administration could have issued: areas 001 to 899 but 666, no group or serial of 0."""

    id = "pii.us_ssn"
    version = "1"
    surfaces = EVERY_SURFACE
    redacts = True
    options_model = None

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Every plausible number: score 0.9 with dashes, 0.6 with blanks."""
        text = subject.text
        for span in _NUMBER.spans(text):
            written = text[span.start : span.end]
            around = {text[span.start - 1 : span.start], text[span.end : span.end + 1]}
            if not around & _GLUE and _is_issuable(written.replace("-", "").replace(" ", "")):
                score = 0.9 if "-" in written else 0.6
                yield Finding("pii.us_ssn", score, span, "SSN", "A US social security number.")


def _is_issuable(digits: str) -> bool:
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return (
        area not in {"000", "666"}
        and int(area) <= _HIGHEST_AREA
        and group != "00"
        and serial != "0000"
        and digits not in _SAMPLES
    )
