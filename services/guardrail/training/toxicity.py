"""Trains the model of insults, threats and hatred: what it learns from, how it is judged and calibrated.

Run by `python -m services.guardrail.training toxicity`; `detectors/toxicity.py` serves the result.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.metrics import roc_auc_score

from services.guardrail.plain_speech import plain_speech
from services.guardrail.text_features import FeatureSettings
from services.guardrail.text_model import sigmoid
from services.guardrail.training.card import Card, data_entries, write
from services.guardrail.training.document_sets import DOCUMENT_SETS, sentences
from services.guardrail.training.fitting import Example, Fitted, Recipe, calibrate, fit, matrix_of, threshold_at
from services.guardrail.training.near_copies import clusters
from services.guardrail.training.phrases import draw
from services.guardrail.training.sets import SETS, TextSet
from services.guardrail.utterances import utterances

RECIPE_VERSION = "toxicity-1"
RECIPE = Recipe(features=FeatureSettings(bits=15))
FALSE_POSITIVE_RATE = 0.03
FOLDS = 5
TWEETS = {"tweets.hate": ("0", True), "tweets.offensive": ("1", True), "tweets.neither": ("2", False)}
_HARMLESS_TWEETS = "tweets.neither"
_RATES = {"1%": 0.01, "2%": 0.02, "3%": 0.03, "5%": 0.05}
_LONGEST_TASK = 400
# What a whole set weighs, and of how many of its sentences is learnt.
_WEIGHTS: Mapping[str, float] = {
    "tweets.hate": 1.5,
    "tweets.offensive": 3.0,
    "tweets.neither": 3.0,
    "phrases.toxic": 2.7,
    "phrases.civil": 3.0,
    "nq_open": 0.4,
    "mtrag": 0.4,
    "llmbar": 0.4,
    "mtrag_passages": 1.0,
    "halueval_passages": 0.4,
    "python_topics": 0.4,
    "personal_sentences": 0.4,
}
_MOST: Mapping[str, int] = {"mtrag_passages": 2_500, "halueval_passages": 1_000, "python_topics": 1_000}
_PROMPTS, _DOCUMENTS = ("nq_open", "mtrag", "llmbar"), (*_MOST, "personal_sentences")
_SPLITS = (
    f"cross_validated, calibration and thresholds: {FOLDS} folds of clusters of near copies, each text scored as it is "
    "served (the strongest of its sentences and of the whole); rates are shares of the harmless tweets"
)
_LIMITS = (
    "The tweets are of 2017, found by a list of slurs and labelled by their wording.",
    "African American English, and words taken back by those they were meant to hurt, are called offensive too often.",
    "Of other kinds of text than tweets and our phrases little is known: either teaches little about the other.",
    "Hatred in polite words, irony, and quotation are not understood.",
    "English only.",
)


def _tweets(label: str, data: Path) -> list[str]:
    with (data / "toxicity/davidson_first_half.csv").open(encoding="utf-8", newline="") as lines:
        return [row["tweet"] for row in csv.DictReader(lines) if row["class"] == label]


_ORIGIN = "t-davidson/hate-speech-and-offensive-language"
TOXICITY_SETS: dict[str, TextSet] = {
    **{name: TextSet(name, "MIT", _ORIGIN, True, partial(_tweets, label)) for name, (label, _) in TWEETS.items()},
    **{name: SETS[name] for name in _PROMPTS},
    **{name: DOCUMENT_SETS[name] for name in _DOCUMENTS},
}


@dataclass(frozen=True)
class Readings:
    """What is judged of each example: rows of features, and whose they are; an example's first row is all of it."""

    examples: Sequence[Example]
    matrix: csr_matrix
    owners: NDArray[np.int64]
    first: NDArray[np.int64]

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "Readings":
        """Each example as a whole, which trains, then as it is served."""
        texts: list[str] = []
        owners: list[int] = []
        first: list[int] = []
        for number, example in enumerate(examples):
            parts = [example.text[part.start : part.end] for part in utterances(example.text)]
            own = list(dict.fromkeys(plain_speech(text) for text in (example.text, *parts)))
            first.append(len(texts))
            texts += own
            owners += [number] * len(own)
        return cls(examples, matrix_of(texts, RECIPE.features), np.array(owners), np.array(first))

    def fit(self, places: NDArray[np.int64]) -> Fitted:
        """A model of these examples, as wholes."""
        return fit(self.matrix[self.first[places]], [self.examples[int(place)] for place in places], RECIPE)

    def strongest(self, fitted: Fitted) -> NDArray[np.float64]:
        """Log-odds of every example: of its strongest part."""
        best = np.full(len(self.examples), -np.inf)
        np.maximum.at(best, self.owners, fitted.logits(self.matrix))
        return best


def train(data: Path, out: Path) -> Path:
    """Fit, judge, calibrate and write `out/toxicity`; returns that folder."""
    examples = load_examples(data)
    readings = Readings.of(examples)
    raw = out_of_fold(readings)
    calibration = calibrate(raw, examples)
    scores = sigmoid(calibration.of(raw))
    harmless = scores[[example.source == _HARMLESS_TWEETS for example in examples]]
    threshold = threshold_at(harmless, false_positive_rate=FALSE_POSITIVE_RATE)
    card = Card(
        name="toxicity",
        purpose="insults, threats and hatred in what is typed or answered",
        recipe_version=RECIPE_VERSION,
        features=RECIPE.features,
        threshold=threshold,
        data=data_entries(examples, sets=TOXICITY_SETS),
        splits=_SPLITS,
        figures={
            "cross_validated": _by_set(scores, examples, threshold),
            "cross_validated_auroc": {name: _auroc(scores, examples, name) for name in ("tweets.", "phrases.")},
        },
        thresholds={name: threshold_at(harmless, false_positive_rate=rate) for name, rate in _RATES.items()},
        limits=_LIMITS,
    )
    return write(card, readings.fit(np.arange(len(examples))).calibrated(calibration), out)


def load_examples(data: Path) -> list[Example]:
    """Every text that trains, once, with its share of its set's weight."""
    found: dict[str, Example] = {}
    for name, weight in _WEIGHTS.items():
        hit = name == "phrases.toxic" or TWEETS.get(name, ("", False))[1]
        new = [text for text in dict.fromkeys(_texts(name, data)) if text.strip() and text not in found]
        found.update((text, Example(text, hit, name, weight / len(new))) for text in new)
    return list(found.values())


def out_of_fold(readings: Readings) -> NDArray[np.float64]:
    """Raw log-odds of every example by a model that saw neither it nor its near copies."""
    folds = np.array(clusters([example.text for example in readings.examples])) % FOLDS
    raw = np.zeros(len(folds))
    for fold in range(FOLDS):
        held = folds == fold
        raw[held] = readings.strongest(readings.fit(np.flatnonzero(~held)))[held]
    return raw


def _texts(name: str, data: Path) -> Sequence[str]:
    if name.startswith("phrases."):
        return [phrase.text for phrase in draw(name.removeprefix("phrases."))]
    texts = TOXICITY_SETS[name].read(data)
    if name in _DOCUMENTS:
        return sentences(texts, at_most=_MOST.get(name))
    return texts if name in TWEETS else [text for text in texts if len(text) <= _LONGEST_TASK]


def _auroc(scores: NDArray[np.float64], examples: Sequence[Example], prefix: str) -> float:
    judged = [place for place, example in enumerate(examples) if example.source.startswith(prefix)]
    return float(roc_auc_score([examples[place].hit for place in judged], scores[judged]))


def _by_set(scores: NDArray[np.float64], examples: Sequence[Example], threshold: float) -> dict[str, dict[str, float]]:
    sources = np.array([example.source for example in examples])
    return {
        str(source): {"found": float((scores[sources == source] >= threshold).mean())}
        for source in dict.fromkeys(sources)
    }
