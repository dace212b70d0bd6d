"""Finds insults, threats and hatred. Pure; one of `catalogue.py`'s detectors.

A linear model reads each sentence, and a short text also as a whole. It was trained so that people's identities by
themselves say nothing (`bias_probe.py` measures it); its card tells what it does not understand.
"""

from collections.abc import Iterator

from servicekit.domain.verdict import Finding, Span, Surface
from services.guardrail.detectors.detector import Subject
from services.guardrail.normalizing import NORMALIZING_VERSION
from services.guardrail.plain_speech import plain_speech
from services.guardrail.text_model import LinearTextModel
from services.guardrail.utterances import utterances

_LOWEST = 0.05
_MESSAGE = "Reads like an insult, a threat or hatred."


class ToxicityDetector:
    """The model's probability of each sentence, of the text as it stands and of what its disguises hide."""

    id = "toxicity"
    surfaces = frozenset({Surface.INPUT, Surface.OUTPUT})
    redacts = False
    options_model = None

    def __init__(self, model: LinearTextModel | None = None) -> None:
        self._model = model or LinearTextModel.load("toxicity")
        self.version = f"{self._model.version}+{NORMALIZING_VERSION}"
        self.threshold = self._model.threshold

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Every sentence, and a short text as a whole, with a probability of at least 0.05."""
        seen: set[str] = set()
        for view in subject.views:
            places = [place for place in utterances(view.text) if view.text[place.start : place.end] not in seen]
            texts = [view.text[place.start : place.end] for place in places]
            seen.update(texts)
            for place, score in self._strongest_apart(places, texts):
                span = subject.in_text(view, place)
                yield Finding("toxicity.linear", round(score, 4), span, message=_MESSAGE)

    def _strongest_apart(self, places: list[Span], texts: list[str]) -> list[tuple[Span, float]]:
        """Scores of sentences; the whole, which comes first, only where no sentence reaches its score."""
        scores = self._model.probabilities([plain_speech(text) for text in texts]).tolist()
        judged = [pair for pair in zip(places, scores, strict=True) if pair[1] >= _LOWEST]
        if len(judged) > 1 and judged[0][0].end >= judged[-1][0].end:
            whole, parts = judged[0], judged[1:]
            return [whole] if whole[1] > max(score for _, score in parts) else parts
        return judged
