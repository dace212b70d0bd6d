"""Places that a more specific detector has found: a card number is no telephone number, an IBAN no account.

Pure; used by the detectors beside it whose own numbers have no check digits.
"""

from bisect import bisect_left
from collections.abc import Iterable

from servicekit.domain.verdict import Span
from services.guardrail.detectors.detector import Detector, Subject


class Claims:
    """What the given detectors find in a text, with at least `min_score`; looked for once."""

    def __init__(self, subject: Subject, detectors: Iterable[Detector], *, min_score: float) -> None:
        found = [finding for detector in detectors for finding in detector.find(subject)]
        spans = sorted(finding.span for finding in found if finding.span and finding.score >= min_score)
        self._spans: list[Span] = []
        for span in spans:  # only the outermost, so that ends grow as starts do
            if not self._spans or span.end > self._spans[-1].end:
                self._spans.append(span)
        self._ends = [span.end for span in self._spans]

    def touch(self, span: Span) -> bool:
        """Whether a claimed place shares a character with the span."""
        at = bisect_left(self._ends, span.start + 1)
        return at < len(self._spans) and self._spans[at].start < span.end
