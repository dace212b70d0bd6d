"""Finds sentences of a document that are instructions to the model which reads it; one of `catalogue.py`'s detectors.

Every sentence is judged by itself: an instruction hides in text that is none. The linear model reads its words, how it
begins, whom it speaks to and what it asks for; where that leaves a doubt and an embedder is there, what it speaks of is
compared with the text around it. Pure but for the embedder.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from servicekit.domain.verdict import Finding, Span, Surface
from servicekit.errors import BinnacleError
from services.guardrail.detectors.detector import Subject
from services.guardrail.instruction_marks import marked
from services.guardrail.normalizing import NORMALIZING_VERSION, NormalizedText
from services.guardrail.pieces import pieces
from services.guardrail.text_model import LinearTextModel, sigmoid
from services.guardrail.topic_break import TopicBreak, nearness

_LOWEST = 0.05
_BY_WORDS, _BY_MEANING = "indirect_injection.sentence", "indirect_injection.topic_break"
_MESSAGES = {
    _BY_WORDS: "Reads like an instruction to the model, inside of a document.",
    _BY_MEANING: "Reads somewhat like an instruction to the model, and leaves the topic of its document.",
}


class IndirectInjectionDetector:
    """The model's probability of each sentence, of the text as it stands and of what its disguises hide."""

    id = "indirect_injection"
    surfaces = frozenset({Surface.RETRIEVED})
    redacts = True
    options_model = None

    def __init__(self, model: LinearTextModel | None = None) -> None:
        self._model = model or LinearTextModel.load("indirect_injection")
        self._topic_break = TopicBreak.of_card(self._model.card)
        self.version = f"{self._model.version}+{NORMALIZING_VERSION}"
        self.threshold = self._model.threshold

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Every sentence with a probability of at least 0.05; its span is the sentence, its kind INSTRUCTION.

        Raises:
            BackendUnavailable, BackendTimeout: there are doubts, the embedder gave no answer, and nothing is sure.
        """
        seen: set[str] = set()
        for view in subject.views:
            places = [place for place in pieces(view.text) if view.text[place.start : place.end] not in seen]
            sentences = [view.text[place.start : place.end] for place in places]
            seen.update(sentences)
            yield from self._judged(subject, view, places, sentences)

    def _judged(
        self, subject: Subject, view: NormalizedText, places: list[Span], sentences: list[str]
    ) -> Iterator[Finding]:
        logits = self._model.logits([marked(sentence) for sentence in sentences])
        by_words = sigmoid(logits)
        scores = self._with_meaning(subject, sentences, logits)
        for place, words, score in zip(places, by_words.tolist(), scores.tolist(), strict=True):
            if score >= _LOWEST:
                rule = _BY_WORDS if score == words else _BY_MEANING
                span = subject.in_text(view, place)
                yield Finding(rule, round(score, 4), span, "INSTRUCTION", _MESSAGES[rule])

    def _with_meaning(self, subject: Subject, sentences: list[str], logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities by words, and where these leave a doubt by the topic too; without an embedder as they are."""
        scores = sigmoid(logits)
        asked = self._topic_break.in_doubt(sentences, scores, sure=self.threshold)
        around = self._topic_break.around(sentences, scores)
        if subject.embed is None or not len(asked) or not around:
            return scores
        doubtful = [sentences[int(place)] for place in asked]
        try:
            near = nearness(subject.embed, doubtful, around)
        except BinnacleError:
            if scores.max() >= self.threshold:
                return scores  # what is sure is told, rather than nothing
            raise
        scores[asked] = self._topic_break.judged(doubtful, logits[asked], near)
        return scores
