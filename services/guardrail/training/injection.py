"""Trains the model of injections and jailbreaks: what it learns from, how it is judged, where its threshold lies.

Run by `python -m services.guardrail.training injection`; `detectors/injection` serves the result.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from services.guardrail.training.card import Card, data_entries, write
from services.guardrail.training.fitting import (
    Example,
    Recipe,
    calibrate,
    fit,
    matrix_of,
    out_of_fold,
    threshold_at,
)
from services.guardrail.training.near_copies import clusters, without_copies
from services.guardrail.training.phrases import draw
from services.guardrail.training.sets import SETS

RECIPE_VERSION = "injection-1"
RECIPE = Recipe()
ATTACK_SETS = ("inthewild", "giskard", "cyberseceval")
JUDGED_HARMLESS = ("notinject_one", "xstest_safe")
HARMLESS_SETS = (
    *JUDGED_HARMLESS,
    "nq_open",
    "mtrag",
    "ragchecker",
    "llmbar",
    "halueval_questions",
    "halueval_passages",
    "bipia_emails",
    "personal_sentences",
    "python_topics",
)
# What a whole set weighs: not in proportion to its texts, lest the largest decides.
SET_WEIGHTS: Mapping[str, float] = {
    "inthewild": 3.0,
    "giskard": 0.5,
    "cyberseceval": 2.0,
    "phrases.attack": 3.0,
    "notinject_one": 0.7,
    "xstest_safe": 0.7,
    "nq_open": 0.7,
    "mtrag": 1.0,
    "ragchecker": 0.3,
    "llmbar": 0.7,
    "halueval_questions": 0.5,
    "halueval_passages": 0.5,
    "bipia_emails": 0.3,
    "personal_sentences": 0.7,
    "python_topics": 1.0,
    "phrases.harmless": 3.0,
}
FALSE_POSITIVE_RATE = 0.01
_FOLDS = 5
_RATES = {"0.5%": 0.005, "1%": 0.01, "2%": 0.02}


def train(data: Path, out: Path) -> Path:
    """Fit, judge, calibrate and write `out/injection`; returns that folder."""
    examples = load_examples(data)
    matrix = matrix_of((example.text for example in examples), RECIPE.features)
    raw = out_of_fold(matrix, examples, folds_of(examples), RECIPE)
    calibration = calibrate(raw, examples)
    scores = _probability(calibration.of(raw))
    fitted = fit(matrix, examples, RECIPE).calibrated(calibration)
    harmless = np.array([not example.hit for example in examples])
    card = Card(
        name="injection",
        purpose="injections and jailbreaks in what a user types or a document holds",
        recipe_version=RECIPE_VERSION,
        features=RECIPE.features,
        threshold=threshold_at(scores[harmless], false_positive_rate=FALSE_POSITIVE_RATE),
        data=data_entries(examples),
        splits=(
            f"calibration, threshold and cross-validated figures: {_FOLDS} folds of clusters of near copies; "
            "leave-one-set-out: trained without the attack set and its near copies, without NotInject and XSTest"
        ),
        figures={
            "cross_validated": _by_set(scores, examples),
            "leave_one_set_out": {name: _left_out(name, examples) for name in ATTACK_SETS},
        },
        thresholds={name: threshold_at(scores[harmless], false_positive_rate=rate) for name, rate in _RATES.items()},
    )
    return write(card, fitted, out)


def load_examples(data: Path) -> list[Example]:
    """Every text that trains, once: licensed sets, then phrases of our own."""
    found: dict[str, Example] = {}
    for name in (*ATTACK_SETS, *HARMLESS_SETS):
        texts = [text for text in SETS[name].read(data) if text.strip()]
        for text in texts:
            found.setdefault(text, Example(text, name in ATTACK_SETS, name))
    for grammar in ("attack", "harmless"):
        for phrase in draw(grammar):
            found.setdefault(phrase.text, Example(phrase.text, grammar == "attack", f"phrases.{grammar}"))
    return weighed(list(found.values()))


def weighed(examples: Sequence[Example]) -> list[Example]:
    """Each with its share of its set's weight."""
    sizes: dict[str, int] = {}
    for example in examples:
        sizes[example.source] = sizes.get(example.source, 0) + 1
    return [
        Example(example.text, example.hit, example.source, SET_WEIGHTS[example.source] / sizes[example.source])
        for example in examples
    ]


def folds_of(examples: Sequence[Example]) -> list[int]:
    """A fold for every example; near copies share theirs."""
    return [cluster % _FOLDS for cluster in clusters([example.text for example in examples])]


def _left_out(name: str, examples: Sequence[Example]) -> dict[str, float]:
    """An attack set judged by a model that saw neither it, nor copies of it, nor the harmless sets it is told from."""
    judged = [example for example in examples if example.source in {name, *JUDGED_HARMLESS}]
    others = [example for example in examples if example.source not in {name, *JUDGED_HARMLESS}]
    kept = without_copies([example.text for example in others], of=(example.text for example in judged))
    seen = weighed([others[place] for place in kept])
    fitted = fit(matrix_of((example.text for example in seen), RECIPE.features), seen, RECIPE)
    scores = fitted.logits(matrix_of((example.text for example in judged), RECIPE.features))
    hits = np.array([example.hit for example in judged])
    threshold = threshold_at(scores[~hits], false_positive_rate=0.02)
    return {
        "auroc": float(roc_auc_score(hits, scores)),
        "recall_at_2_percent": float((scores[hits] >= threshold).mean()),
        "hits": int(hits.sum()),
        "harmless": int((~hits).sum()),
    }


def _by_set(scores: NDArray[np.float64], examples: Sequence[Example]) -> dict[str, dict[str, float]]:
    """The share of each set at or above the threshold of 1 %, by models that had not seen the text."""
    harmless = np.array([not example.hit for example in examples])
    threshold = threshold_at(scores[harmless], false_positive_rate=FALSE_POSITIVE_RATE)
    sources = np.array([example.source for example in examples])
    return {
        str(source): {"found": float((scores[sources == source] >= threshold).mean())}
        for source in dict.fromkeys(sources)
    }


def _probability(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)), dtype=np.float64)
