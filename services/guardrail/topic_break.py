"""Judges sentences of which the words leave a doubt by how far their meaning is from the text around them.

Pure but for the embedder; used by `detectors/indirect_injection.py`, fitted by `training/topic_break.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from services.guardrail.text_model import sigmoid

MAX_ASKED = 3
"""Sentences embedded for one text: those in most doubt, at two or three milliseconds each."""

AROUND_CHARS = 250
"""Of the text around them, about 60 tokens."""

Embedding = Callable[[Sequence[str]], Sequence[Sequence[float]]]


@dataclass(frozen=True, slots=True)
class TopicBreak:
    """log-odds = `by_words` * log-odds by words + `by_nearness` * cosine with the text around + `offset`.

    In doubt is what has a probability by words of at least `lowest`. It is raised where the topic breaks. Only a plain
    question is also lowered: on its document's topic it is a heading, while an order to the model that keeps to the
    topic is none the less one.
    """

    by_words: float
    by_nearness: float
    offset: float
    lowest: float

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> Self:
        """As a model's card states it."""
        return cls(**card["topic_break"])

    def in_doubt(
        self, sentences: Sequence[str], probabilities: NDArray[np.float64], *, sure: float
    ) -> NDArray[np.int64]:
        """Places of the sentences to ask about, in order: the likeliest below `sure`, and of questions all."""
        doubtful = np.flatnonzero((probabilities >= self.lowest) & ((probabilities < sure) | _questions(sentences)))
        likeliest = doubtful[np.argsort(-probabilities[doubtful], kind="stable")][:MAX_ASKED]
        return np.sort(likeliest)

    def around(self, sentences: Sequence[str], probabilities: NDArray[np.float64]) -> str:
        """The beginning of what is in no doubt; empty where all is."""
        plain = (text for text, value in zip(sentences, probabilities, strict=True) if value < self.lowest)
        taken: list[str] = []
        for text in plain:
            taken.append(text)
            if sum(map(len, taken)) >= AROUND_CHARS:
                break
        return " ".join(taken)[:AROUND_CHARS]

    def judged(
        self, sentences: Sequence[str], logits: NDArray[np.float64], nearness: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Probabilities by words and by meaning; below those by words alone only for questions."""
        both = sigmoid(self.by_words * logits + self.by_nearness * nearness + self.offset)
        return np.where(_questions(sentences), both, np.maximum(sigmoid(logits), both))


def nearness(embed: Embedding, sentences: Sequence[str], around: str) -> NDArray[np.float64]:
    """Cosine of each sentence with the text around it."""
    vectors = np.array([list(vector) for vector in embed([around, *sentences])], dtype=np.float64)
    return np.asarray(vectors[1:] @ vectors[0], dtype=np.float64)


def _questions(sentences: Sequence[str]) -> NDArray[np.bool_]:
    return np.array([sentence.endswith("?") for sentence in sentences], dtype=bool)
