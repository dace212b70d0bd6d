"""Finds sentences of an answer that its chunks do not support. Pure; one of `catalogue.py`'s detectors."""

from collections.abc import Iterator

from servicekit.domain.grounding import GROUNDING_VERSION, SentenceSupport
from servicekit.domain.verdict import Finding, Surface
from services.guardrail.detectors.detector import Subject


class GroundednessDetector:
    """`servicekit.domain.grounding` as a detector: the evaluator measures by the same."""

    id = "groundedness"
    version = GROUNDING_VERSION
    surfaces = frozenset({Surface.OUTPUT})
    redacts = False
    options_model = None

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Every unsupported sentence, score 1 - support; nothing where there are no chunks."""
        if subject.grounding is None:
            return
        for sentence in subject.grounding.sentences:
            if not sentence.supported:
                rule, message = _reason(sentence)
                yield Finding(rule, round(1.0 - sentence.support, 4), sentence.span, message=message)


def _reason(sentence: SentenceSupport) -> tuple[str, str]:
    if sentence.missing_numbers:
        return "groundedness.number", "States a number that no chunk holds."
    if sentence.missing_identifiers:
        return "groundedness.identifier", "Names an identifier that no chunk holds."
    if sentence.negation_differs:
        return "groundedness.negation", "Says the opposite of a chunk's sentence."
    return "groundedness.coverage", "Most of its words are in no chunk."
