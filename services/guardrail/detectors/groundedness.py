"""Finds sentences of an answer that its chunks do not support. Pure; one of `catalogue.py`'s detectors."""

from collections.abc import Iterator

from servicekit.domain.grounding import GROUNDING_VERSION, UNSUPPORTED, SentenceSupport
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
        """Every sentence that is more in doubt than not, the doubt its score; nothing where there are no chunks."""
        for sentence in subject.grounding.sentences if subject.grounding else ():
            if sentence.doubt >= 1.0 - UNSUPPORTED:
                rule, message = _reason(sentence)
                yield Finding(rule, sentence.doubt, sentence.span, message=message)

    def score(self, subject: Subject) -> float:
        """How far the answer's worst sentence is in doubt, 0 to 1."""
        return max((one.doubt for one in subject.grounding.sentences), default=0.0) if subject.grounding else 0.0


def _reason(sentence: SentenceSupport) -> tuple[str, str]:
    if sentence.missing_numbers:
        return "groundedness.number", "States a number that no chunk holds."
    if sentence.missing_names:
        return "groundedness.name", "Says a name that no chunk holds."
    if sentence.missing_identifiers:
        return "groundedness.identifier", "Names an identifier that no chunk holds."
    if sentence.negation_differs:
        return "groundedness.negation", "Says the opposite of a chunk's sentence."
    if sentence.opposite_said:
        return "groundedness.opposite", "Repeats a chunk's sentence with an opposite word."
    return "groundedness.coverage", "Most of its words are in no chunk."
