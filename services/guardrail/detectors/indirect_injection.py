"""Finds sentences of a document that are instructions to the model which reads it. Pure; one of `catalogue.py`'s.

Every sentence is judged by itself: an instruction hides in text that is none. The linear model reads its words, how it
begins, whom it speaks to and what it asks for.
"""

from collections.abc import Iterator

from servicekit.domain.verdict import Finding, Span, Surface
from services.guardrail.detectors.detector import Subject
from services.guardrail.instruction_marks import marked
from services.guardrail.normalizing import NORMALIZING_VERSION, NormalizedText
from services.guardrail.pieces import pieces
from services.guardrail.text_model import LinearTextModel

_LOWEST = 0.05
_MESSAGE = "Reads like an instruction to the model, inside of a document."


class IndirectInjectionDetector:
    """The model's probability of each sentence, of the text as it stands and of what its disguises hide."""

    id = "indirect_injection"
    surfaces = frozenset({Surface.RETRIEVED})
    redacts = True
    options_model = None

    def __init__(self, model: LinearTextModel | None = None) -> None:
        self._model = model or LinearTextModel.load("indirect_injection")
        self.version = f"{self._model.version}+{NORMALIZING_VERSION}"
        self.threshold = self._model.threshold

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Every sentence with a probability of at least 0.05; its span is the sentence, its kind INSTRUCTION."""
        seen: set[str] = set()
        for view in subject.views:
            places = [place for place in pieces(view.text) if view.text[place.start : place.end] not in seen]
            sentences = [view.text[place.start : place.end] for place in places]
            seen.update(sentences)
            yield from self._judged(subject, view, places, sentences)

    def _judged(
        self, subject: Subject, view: NormalizedText, places: list[Span], sentences: list[str]
    ) -> Iterator[Finding]:
        scores = self._model.probabilities([marked(sentence) for sentence in sentences])
        for place, score in zip(places, scores.tolist(), strict=True):
            if score >= _LOWEST:
                span = subject.in_text(view, place)
                yield Finding("indirect_injection.sentence", round(score, 4), span, "INSTRUCTION", _MESSAGE)
