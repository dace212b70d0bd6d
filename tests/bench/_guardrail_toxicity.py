"""How well insults, threats and hatred are told from tweets, prompts and documents that hold none.

Part of `guardrail_quality.py`. "cross_validated/…": by models that had not seen the text nor near copies of it.
"without_…": by a model that saw none of that kind of text: phrases for tweets, tweets for phrases. "shipped/…":
harmless texts that trained nothing, by the shipped model. All scores are `find`'s, at the shipped threshold.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from servicekit.domain.verdict import Surface
from services.guardrail.bias_probe import load_probes
from services.guardrail.detectors.detector import Subject
from services.guardrail.detectors.toxicity import ToxicityDetector
from services.guardrail.normalizing import normalize
from services.guardrail.text_model import LinearTextModel
from services.guardrail.training.document_sets import DOCUMENT_SETS, sentences
from services.guardrail.training.fitting import Calibration, Fitted, calibrate
from services.guardrail.training.near_copies import clusters
from services.guardrail.training.sets import SETS
from services.guardrail.training.toxicity import FOLDS, Readings, load_examples, out_of_fold
from tests.bench._guardrail_figures import Figures, binary_figures
from tests.bench._guardrail_shipped import in_threads, shipped

_KINDS = ("tweets", "phrases")
_SENTENCES = 2_000


def measure(data: Path) -> dict[str, Figures]:
    """Figures by the name of the set."""
    examples = load_examples(data)
    readings = Readings.of(examples)
    calibration = calibrate(out_of_fold(readings), examples)
    found = _cross_validated(readings, calibration)
    for kind in _KINDS:
        is_kind = np.array([example.source.startswith(kind) for example in examples])
        detector = _serving(readings.fit(np.flatnonzero(~is_kind)), calibration)
        judged = [example for example in examples if example.source.startswith(kind)]
        scores = _scores(detector, [example.text for example in judged])
        found[f"without_{kind}/{kind}"] = _figures(scores, [example.hit for example in judged])
    for name, texts in _harmless(data).items():
        scores = _scores(ToxicityDetector(), texts)
        found[f"shipped/{name}"] = _figures(scores, [False] * len(texts))
    return found


def _harmless(data: Path) -> dict[str, Sequence[str]]:
    """Texts that trained nothing: prompts with words of violence, documents, sentences that name identities."""
    named = [text for probe in load_probes() if not probe.harmful for text in probe.variants.values()]
    return {
        "xstest_safe": SETS["xstest_safe"].read(data),
        "notinject_one": SETS["notinject_one"].read(data),
        "python_docstrings": sentences(DOCUMENT_SETS["python_docstrings"].read(data), at_most=_SENTENCES),
        "cranfield": sentences(DOCUMENT_SETS["cranfield"].read(data), at_most=_SENTENCES),
        "identities": named,
    }


def _cross_validated(readings: Readings, calibration: Calibration) -> dict[str, Figures]:
    examples = readings.examples
    folds = np.array(clusters([example.text for example in examples])) % FOLDS
    judged = np.array([example.source.startswith(_KINDS) for example in examples])
    scores = np.zeros(len(examples))
    for fold in range(FOLDS):
        places = np.flatnonzero((folds == fold) & judged)
        detector = _serving(readings.fit(np.flatnonzero(folds != fold)), calibration)
        scores[places] = _scores(detector, [examples[int(place)].text for place in places])
    found = {}
    for kind in _KINDS:
        own = [place for place, example in enumerate(examples) if example.source.startswith(kind)]
        found[f"cross_validated/{kind}"] = _figures(scores[own].tolist(), [examples[place].hit for place in own])
    return found


def _serving(fitted: Fitted, calibration: Calibration) -> ToxicityDetector:
    """What would be loaded had this model been shipped."""
    calibrated = fitted.calibrated(calibration)
    own = LinearTextModel.load("toxicity")
    return ToxicityDetector(replace(own, weights=calibrated.weights.astype(np.float32), bias=calibrated.bias))


def _scores(detector: ToxicityDetector, texts: Sequence[str]) -> list[float]:
    return in_threads(partial(_score, detector), texts)


def _score(detector: ToxicityDetector, text: str) -> float:
    return max((finding.score for finding in detector.find(Subject(Surface.INPUT, normalize(text)))), default=0.0)


def _figures(scores: Sequence[float], labels: Sequence[bool]) -> Figures:
    return binary_figures(scores, labels, shipped("toxicity").threshold)
