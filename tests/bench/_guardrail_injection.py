"""How well injections are told from what people type: by models that had seen neither the texts nor copies of them.

Part of `guardrail_quality.py`. "leave_one_set_out/…": an attack set against NotInject and XSTest's safe prompts, the
model trained without all three; rules are left out, for they were written with the attack sets in sight.
"cross_validated/…": the shipped training, five folds of near copies. "shipped/cranfield_queries": harmless queries
that trained nothing, by the shipped detector. All scores are `find`'s, at the shipped threshold.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from servicekit.domain.verdict import Surface
from services.guardrail.detectors.detector import Subject
from services.guardrail.detectors.injection.detector import InjectionDetector
from services.guardrail.detectors.injection.model import InjectionModel
from services.guardrail.detectors.injection.rules import RuleSet
from services.guardrail.normalizing import normalize
from services.guardrail.training.cascade import Cascade, WindowedTexts
from services.guardrail.training.embedding import Vectors
from services.guardrail.training.fitting import Example, threshold_at
from services.guardrail.training.injection import (
    EMBEDDING_MODEL,
    FOLDS,
    RECIPE,
    Judged,
    cascade_without,
)
from services.guardrail.training.injection_texts import ATTACK_SETS, JUDGED_HARMLESS, load_examples
from services.guardrail.training.sets import SETS
from tests.bench._guardrail_figures import Figures, binary_figures
from tests.bench._guardrail_shipped import embed, in_threads, shipped

_JUDGED = (*ATTACK_SETS, *JUDGED_HARMLESS, "nq_open", "mtrag", "llmbar")


def measure(data: Path) -> dict[str, Figures]:
    """Figures by the name of the set."""
    texts = WindowedTexts.of(load_examples(data), RECIPE)
    judged = Judged.of(texts, Vectors())
    found = {f"leave_one_set_out/{name}": _left_out(name, texts, judged) for name in ATTACK_SETS}
    whole = Cascade.fit(texts, judged.rows, judged.raw, RECIPE)
    found |= _cross_validated(texts, judged, whole)
    queries = list(SETS["cranfield_queries"].read(data))
    own = shipped("injection")
    scores = own.scores(queries, surface=Surface.INPUT)
    found["shipped/cranfield_queries"] = binary_figures(scores, [False] * len(queries), own.threshold)
    return found


def _left_out(name: str, texts: WindowedTexts, judged: Judged) -> Figures:
    cascade, held = cascade_without(name, texts, judged)
    scores, labels = _scores(cascade, held), [example.hit for example in held]
    harmless = np.array([score for score, hit in zip(scores, labels, strict=True) if not hit])
    at_two = threshold_at(harmless, false_positive_rate=0.02)
    hits = [score for score, hit in zip(scores, labels, strict=True) if hit]
    return {
        **binary_figures(scores, labels, shipped("injection").threshold),
        "recall_at_2_percent_fpr": round(sum(score >= at_two for score in hits) / len(hits), 4),
    }


def _cross_validated(texts: WindowedTexts, judged: Judged, whole: Cascade) -> dict[str, Figures]:
    """Each judged set against all harmless texts among them, by the fold's own stages and the shipped calibration."""
    scored: dict[str, list[float]] = {name: [] for name in _JUDGED}
    for fold in range(FOLDS):
        first, second = judged.stages[fold]
        places = np.flatnonzero(judged.folds == fold).tolist()
        held = [texts.examples[place] for place in places if texts.examples[place].source in _JUDGED]
        for example, score in zip(held, _scores(replace(whole, linear=first, head=second), held), strict=True):
            scored[example.source].append(score)
    harmless = [score for name in _JUDGED if name not in ATTACK_SETS for score in scored[name]]
    threshold = shipped("injection").threshold
    figures: dict[str, Figures] = {}
    for name, scores in scored.items():
        others = harmless if name in ATTACK_SETS else []
        labels = [name in ATTACK_SETS] * len(scores) + [False] * len(others)
        figures[f"cross_validated/{name}"] = binary_figures([*scores, *others], labels, threshold)
    return figures


def _scores(cascade: Cascade, examples: Sequence[Example]) -> list[float]:
    """By the detector as it is shipped, but for these weights and without rules."""
    detector = InjectionDetector(RuleSet("none", ()), _served(cascade))
    return in_threads(partial(_score, detector), [example.text for example in examples])


def _score(detector: InjectionDetector, text: str) -> float:
    subject = Subject(Surface.INPUT, normalize(text), embed=embed())
    return max(finding.score for finding in detector.find(subject))


def _served(cascade: Cascade) -> InjectionModel:
    """What would be loaded had this cascade been shipped."""
    own, fitted = InjectionModel.load(), cascade.calibrated_linear
    settings = cascade.settings(EMBEDDING_MODEL)["embedding"]
    return replace(
        own,
        linear=replace(own.linear, weights=fitted.weights.astype(np.float16).astype(np.float32), bias=fitted.bias),
        head=cascade.tensors()["head"].astype(np.float32),
        scale=settings["scale"],
        bias=settings["bias"],
    )
