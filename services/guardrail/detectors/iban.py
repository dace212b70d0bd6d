"""Finds international bank account numbers by country, length and check digits. Pure; one of `catalogue.py`'s."""

from collections.abc import Iterator

from schwifty import IBAN
from schwifty.exceptions import SchwiftyException

from servicekit.domain.verdict import Finding, Span
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.linear import LinearPattern

_CANDIDATE = LinearPattern(r"\b[a-z]{2}\d{2}(?:[ \-]?[a-z0-9]){11,30}\b", ignore_case=True)
_SHORTEST = 15


class IbanDetector:
    """ISO 13616: country code, check digits, account number; printed in groups or not."""

    id = "pii.iban"
    version = "1"
    surfaces = EVERY_SURFACE
    redacts = True
    options_model = None

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Every number whose length and check digits are right, score 0.99."""
        for span in _CANDIDATE.spans(subject.text):
            end = _valid_end(subject.text, span)
            if end:
                yield Finding("pii.iban", 0.99, Span(span.start, end), "IBAN", "A bank account number (IBAN).")


def _valid_end(text: str, span: Span) -> int:
    """Where the number ends: a candidate in groups may have run on into the words behind it."""
    candidate = text[span.start : span.end]
    ends = [len(candidate)]
    ends += [i for i in range(len(candidate) - 1, _SHORTEST - 1, -1) if candidate[i] in " -"]
    return next((span.start + end for end in ends if _is_valid(candidate[:end])), 0)


def _is_valid(candidate: str) -> bool:
    try:
        IBAN(candidate.replace("-", ""))
    except SchwiftyException:
        return False
    return True
