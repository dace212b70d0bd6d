"""Fits how much a break of the topic says about a sentence of which the words leave a doubt.

Called by `training/indirect_injection.py`; `services/guardrail/topic_break.py` serves the numbers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from services.guardrail.pieces import pieces
from services.guardrail.text_model import sigmoid
from services.guardrail.topic_break import TopicBreak, nearness
from services.guardrail.training.embedding import Vectors
from services.guardrail.training.planting import Planted, is_planted, planted

LOWEST = 0.3
FALSE_POSITIVE_RATE = 0.0005
"""Of harmless sentences, those that may be raised over the threshold."""

_STRENGTH = 10.0
_ASKING = TopicBreak(by_words=1.0, by_nearness=0.0, offset=0.0, lowest=LOWEST)

Score = Callable[[Sequence[str]], NDArray[np.float64]]
"""Calibrated log-odds of sentences, by a model that had not seen them."""


@dataclass(frozen=True)
class Doubts:
    """Sentences in doubt, asked as in service: log-odds by words, nearness, whether planted.

    `hits` and `harmless` count all sentences; `told_hits` and `told_harmless` those told by words and not asked about.
    """

    sentences: tuple[str, ...]
    logits: NDArray[np.float64]
    nearness: NDArray[np.float64]
    planted: NDArray[np.bool_]
    hits: int
    harmless: int
    told_hits: int
    told_harmless: int

    @classmethod
    def of(cls, case: Planted, score: Score, vectors: Vectors, *, sure: float) -> "Doubts":
        """Those of one document."""
        places = pieces(case.text)
        sentences = [case.text[place.start : place.end] for place in places]
        hits = np.array([is_planted(case, place) for place in places])
        logits = score(sentences)
        told = sigmoid(logits) >= sure
        asked = _ASKING.in_doubt(sentences, sigmoid(logits), sure=sure)
        around = _ASKING.around(sentences, sigmoid(logits))
        asked = asked if around else asked[:0]
        told[asked] = False
        doubtful = tuple(sentences[int(place)] for place in asked)
        near = nearness(lambda texts: vectors.of(texts).tolist(), doubtful, around) if doubtful else np.empty(0)
        counts = (int(hits.sum()), int((~hits).sum()), int((told & hits).sum()), int((told & ~hits).sum()))
        return cls(doubtful, logits[asked], near, hits[asked], *counts)

    @classmethod
    def together(cls, several: Sequence["Doubts"]) -> "Doubts":
        """Those of several documents."""
        return cls(
            tuple(text for each in several for text in each.sentences),
            np.concatenate([each.logits for each in several]),
            np.concatenate([each.nearness for each in several]),
            np.concatenate([each.planted for each in several]),
            sum(each.hits for each in several),
            sum(each.harmless for each in several),
            sum(each.told_hits for each in several),
            sum(each.told_harmless for each in several),
        )


def fit_topic_break(
    documents: Mapping[str, Sequence[str]], instructions: Sequence[str], score: Score, *, sure: float
) -> tuple[TopicBreak, dict[str, Any]]:
    """The numbers, and figures of each set of documents by numbers that were fitted on the others."""
    vectors = Vectors()
    doubts = {
        name: Doubts.together([Doubts.of(case, score, vectors, sure=sure) for case in planted(instructions, texts)])
        for name, texts in documents.items()
    }
    figures = {}
    for name, own in doubts.items():
        others = Doubts.together([each for other, each in doubts.items() if other != name])
        figures[name] = _figures(_fitted(others, sure=sure), own, sure=sure)
    return _fitted(Doubts.together(list(doubts.values())), sure=sure), figures


def settings(found: TopicBreak) -> dict[str, float]:
    """As a card states it."""
    return asdict(found)


def _fitted(doubts: Doubts, *, sure: float) -> TopicBreak:
    """Logistic regression, its offset moved so that harmless sentences in doubt rarely reach the threshold."""
    columns = np.column_stack([doubts.logits, doubts.nearness])
    model = LogisticRegression(C=_STRENGTH, class_weight="balanced").fit(columns, doubts.planted)
    by_words, by_nearness = map(float, model.coef_[0])
    harmless = np.sort((columns @ model.coef_[0])[~doubts.planted])[::-1]
    allowed = int(FALSE_POSITIVE_RATE * doubts.harmless)
    highest = float(harmless[min(allowed, len(harmless) - 1)])
    return TopicBreak(by_words, by_nearness, math.log(sure / (1 - sure)) - highest - 1e-6, LOWEST)


def _figures(found: TopicBreak, doubts: Doubts, *, sure: float) -> dict[str, float]:
    by_words = sigmoid(doubts.logits) >= sure
    told = found.judged(doubts.sentences, doubts.logits, doubts.nearness) >= sure
    hits, harmless = doubts.planted, ~doubts.planted
    return {
        "recall_by_words": (doubts.told_hits + int((by_words & hits).sum())) / doubts.hits,
        "recall": (doubts.told_hits + int((told & hits).sum())) / doubts.hits,
        "false_positive_rate_by_words": (doubts.told_harmless + int((by_words & harmless).sum())) / doubts.harmless,
        "false_positive_rate": (doubts.told_harmless + int((told & harmless).sum())) / doubts.harmless,
        "hits": doubts.hits,
        "harmless": doubts.harmless,
    }
