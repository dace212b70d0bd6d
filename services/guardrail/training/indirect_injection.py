"""Trains the model of instructions hidden in documents: what it learns from, how it is judged and calibrated.

Run by `python -m services.guardrail.training indirect_injection`; `detectors/indirect_injection.py` serves the result.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from services.guardrail.instruction_marks import MARKS_VERSION, marked
from services.guardrail.text_features import FeatureSettings
from services.guardrail.text_model import sigmoid
from services.guardrail.training.card import Card, data_entries, write
from services.guardrail.training.document_sets import CODE_ATTACKS, DOCUMENT_SETS, TEXT_ATTACKS, attacks, sentences
from services.guardrail.training.fitting import (
    Example,
    Fitted,
    Recipe,
    calibrate,
    fit,
    matrix_of,
    out_of_fold,
    threshold_at,
)
from services.guardrail.training.near_copies import clusters
from services.guardrail.training.phrases import draw
from services.guardrail.training.planting import drawn
from services.guardrail.training.topic_break import fit_topic_break, settings

RECIPE_VERSION = "indirect-2"
RECIPE = Recipe(features=FeatureSettings(bits=15))
FALSE_POSITIVE_RATE = 0.002
_FOLDS = 5
_RATES = {"0.1%": 0.001, "0.2%": 0.002, "0.5%": 0.005, "1%": 0.01}
BIPIA_ATTACKS = ("bipia_text_attacks", "bipia_code_attacks")
BIPIA_DOCUMENTS = ("bipia_emails", "bipia_code_contexts")
# What a whole set weighs, and of how many sentences of it are learnt from.
_INSTRUCTION_WEIGHTS: Mapping[str, float] = {
    "bipia_text_attacks": 1.2,
    "bipia_code_attacks": 0.5,
    "llmbar_tasks": 1.0,
    "nq_questions": 0.4,
    "phrases.instruction": 5.0,
    "phrases.attack": 0.6,
}
_DOCUMENT_WEIGHTS: Mapping[str, float] = {
    "bipia_emails": 0.7,
    "bipia_code_contexts": 0.7,
    "begin_wow": 0.3,
    "mtrag_passages": 1.5,
    "halueval_passages": 0.5,
    "python_topics": 1.2,
    "personal_sentences": 0.4,
    "phrases.document": 5.0,
}
_MOST: Mapping[str, int] = {
    "nq_questions": 600,
    "mtrag_passages": 3_000,
    "halueval_passages": 1_500,
    "python_topics": 2_000,
    "personal_sentences": 1_000,
    "begin_wow": 600,
}
_LONGEST_ATTACK = 250
_BROKEN = ("bipia_emails", "mtrag_passages", "python_topics", "questions_answered")
_DOCUMENTS = 75
_SPLITS = (
    f"cross_validated, calibration and thresholds: {_FOLDS} folds, of whole categories of BIPIA's attacks and of "
    "clusters of near copies. without_bipia: trained on nothing of BIPIA, judged on its attacks and its documents. "
    "with_embedder: BIPIA's attacks planted in documents, by numbers fitted on the other sets of documents"
)
_LIMITS = (
    "Phrases of our own were written with BIPIA's training attacks in sight; its other attacks were not looked at.",
    "English only; an instruction in another language is found where it quotes English.",
    "A page of tasks for pupils, or of prompts for models, is an instruction by its words, and is taken for one.",
    "A plain question hidden in a page of questions (FAQ) cannot be told from them by its words.",
)


def train(data: Path, out: Path) -> Path:
    """Fit, judge, calibrate and write `out/indirect_injection`; returns that folder."""
    examples = load_examples(data)
    matrix = matrix_of((marked(example.text) for example in examples), RECIPE.features)
    raw = out_of_fold(matrix, examples, folds_of(examples, data), RECIPE)
    calibration = calibrate(raw, examples)
    scores = sigmoid(calibration.of(raw))
    harmless = scores[[not example.hit for example in examples]]
    threshold = threshold_at(harmless, false_positive_rate=FALSE_POSITIVE_RATE)
    bipia = (*BIPIA_ATTACKS, *BIPIA_DOCUMENTS)
    seen = np.flatnonzero([example.source not in bipia for example in examples])
    stranger = fit(matrix[seen], [examples[int(place)] for place in seen], RECIPE)
    unseen = dict(zip((example.text for example in examples), calibration.of(raw).tolist(), strict=True))
    topic_break, broken = fit_topic_break(
        {name: drawn(DOCUMENT_SETS[name].read(data), count=_DOCUMENTS, fewest_sentences=2) for name in _BROKEN},
        DOCUMENT_SETS["bipia_text_attacks"].read(data),
        partial(_logits, unseen, stranger.calibrated(calibration)),
        sure=threshold,
    )
    card = Card(
        name="indirect_injection",
        purpose="sentences of a document that are instructions to the model which reads it",
        recipe_version=f"{RECIPE_VERSION}.marks{MARKS_VERSION}",
        features=RECIPE.features,
        threshold=threshold,
        data=data_entries(examples, sets=DOCUMENT_SETS),
        splits=_SPLITS,
        figures={
            "cross_validated": _by_set(scores, examples, threshold),
            "cross_validated_auroc": _aurocs(scores, examples),
            "without_bipia_auroc": _aurocs(stranger.logits(matrix), examples),
            "with_embedder": broken,
        },
        thresholds={name: threshold_at(harmless, false_positive_rate=rate) for name, rate in _RATES.items()},
        limits=_LIMITS,
        more={"topic_break": settings(topic_break)},
    )
    return write(card, fit(matrix, examples, RECIPE).calibrated(calibration), out)


def _logits(unseen: Mapping[str, float], stranger: Fitted, sentences: Sequence[str]) -> NDArray[np.float64]:
    """Log-odds by models that had not seen the sentence: its fold's, or one that knows nothing of BIPIA."""
    by_stranger = stranger.logits(matrix_of(map(marked, sentences), RECIPE.features)).tolist()
    return np.array([unseen.get(text, value) for text, value in zip(sentences, by_stranger, strict=True)])


def load_examples(data: Path) -> list[Example]:
    """Every sentence that trains, once, with its share of its set's weight."""
    found: dict[str, Example] = {}
    for name, weight in _INSTRUCTION_WEIGHTS.items():
        texts = _instructions(name, data)[: _MOST.get(name)]
        _add(found, texts, hit=True, name=name, weight=weight)
    for name, weight in _DOCUMENT_WEIGHTS.items():
        _add(found, _document_sentences(name, data), hit=False, name=name, weight=weight)
    return list(found.values())


def _add(found: dict[str, Example], texts: Sequence[str], *, hit: bool, name: str, weight: float) -> None:
    new = [text for text in dict.fromkeys(texts) if text.strip() and text not in found]
    found.update((text, Example(text, hit, name, weight / len(new))) for text in new)


def _instructions(name: str, data: Path) -> Sequence[str]:
    if name == "phrases.attack":
        return [phrase.text for phrase in draw("attack") if len(phrase.text) <= _LONGEST_ATTACK]
    return [phrase.text for phrase in draw("instruction")] if name in _DRAWN else DOCUMENT_SETS[name].read(data)


def _document_sentences(name: str, data: Path) -> Sequence[str]:
    if name in _DRAWN:
        return [phrase.text for phrase in draw("document")]
    return sentences(DOCUMENT_SETS[name].read(data), at_most=_MOST.get(name))


_DRAWN = ("phrases.instruction", "phrases.document")


def folds_of(examples: Sequence[Example], data: Path) -> list[int]:
    """A fold for every sentence: a category of attacks has one, and so have near copies."""
    categories = {
        text: number
        for file in (TEXT_ATTACKS, CODE_ATTACKS)
        for number, texts in enumerate(attacks(data, file).values())
        for text in texts
    }
    numbers = clusters([example.text for example in examples])
    return [
        (categories.get(example.text, number) if example.hit else number) % _FOLDS
        for example, number in zip(examples, numbers, strict=True)
    ]


def _aurocs(scores: NDArray[np.float64], examples: Sequence[Example]) -> dict[str, dict[str, float]]:
    """BIPIA's instructions of each kind against the sentences of its documents of that kind."""
    found = {}
    for attack_set, document_set in zip(BIPIA_ATTACKS, BIPIA_DOCUMENTS, strict=True):
        judged = [place for place, example in enumerate(examples) if example.source in {attack_set, document_set}]
        hits = [examples[place].hit for place in judged]
        found[document_set] = {"auroc": float(roc_auc_score(hits, scores[judged])), "hits": sum(hits), "n": len(hits)}
    return found


def _by_set(scores: NDArray[np.float64], examples: Sequence[Example], threshold: float) -> dict[str, dict[str, float]]:
    """The share of each set's sentences at or above the threshold, by models that had not seen them."""
    sources = np.array([example.source for example in examples])
    return {
        str(source): {"found": float((scores[sources == source] >= threshold).mean())}
        for source in dict.fromkeys(sources)
    }
