"""Trains the model of injections and jailbreaks: how it is fitted, judged and calibrated, and where its threshold lies.

Run by `python -m services.guardrail.training injection`; `detectors/injection` serves the result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from services.guardrail.training.card import Card, data_entries, write
from services.guardrail.training.cascade import Cascade, Head, WindowedTexts, fit_head
from services.guardrail.training.embedding import Vectors
from services.guardrail.training.fitting import Example, Fitted, Recipe, fit, threshold_at
from services.guardrail.training.injection_texts import (
    ATTACK_SETS,
    JUDGED_HARMLESS,
    LICENCES,
    load_examples,
    weighed,
)
from services.guardrail.training.near_copies import clusters, without_copies

RECIPE_VERSION = "injection-5"
RECIPE = Recipe()
EMBEDDING_MODEL = "all-MiniLM-L6-v2"
FALSE_POSITIVE_RATE = 0.02
FOLDS = 5
_RATES = {"0.5%": 0.005, "1%": 0.01, "2%": 0.02}
_SPLITS = (
    f"cross_validated, calibration and thresholds: {FOLDS} folds of clusters of near copies. leave_one_set_out: "
    "trained without the attack set and its near copies, without NotInject and XSTest; judged on it and on those two"
)
_LIMITS = (
    "An order that is an attack only against some system prompt (a plain question on a forbidden topic) is not told.",
    "Phrases of our own were written with NotInject_one, XSTest and the three attack sets in sight.",
    "Of other languages than English it knows phrases of our own only, and the vectors are English.",
)

Raw = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Log-odds of the first and of the second stage."""


def train(data: Path, out: Path) -> Path:
    """Fit, judge, calibrate and write `out/injection`; returns that folder."""
    vectors = Vectors()
    texts = WindowedTexts.of(load_examples(data), RECIPE)
    judged = Judged.of(texts, vectors)
    cascade = Cascade.fit(texts, judged.rows, judged.raw, RECIPE)
    scores, alone = cascade.probabilities(*judged.raw), cascade.probabilities(judged.raw[0], None)
    harmless = scores[~_hits(texts.examples)]
    threshold = ceil(100 * threshold_at(harmless, false_positive_rate=FALSE_POSITIVE_RATE)) / 100
    card = Card(
        name="injection",
        purpose="injections and jailbreaks in what a user types",
        recipe_version=RECIPE_VERSION,
        features=RECIPE.features,
        threshold=threshold,
        data=data_entries(texts.examples, licences=LICENCES),
        splits=_SPLITS,
        figures={
            "cross_validated": _by_set(scores, texts.examples, threshold),
            "cross_validated_without_embedder": _by_set(alone, texts.examples, threshold),
            "leave_one_set_out": {
                name: left_out(name, texts, judged, vectors, threshold=threshold) for name in ATTACK_SETS
            },
        },
        thresholds={name: threshold_at(harmless, false_positive_rate=rate) for name, rate in _RATES.items()},
        limits=_LIMITS,
        more=cascade.settings(EMBEDDING_MODEL),
    )
    return write(card, cascade.calibrated_linear, out, tensors=cascade.tensors())


@dataclass(frozen=True)
class Judged:
    """Every example as models judge it that have not seen it, and those models.

    `rows` are vectors of each example's strongest window, `raw` both stages' log-odds, `stages[f]` the stages that
    saw nothing of the examples in fold f.
    """

    rows: NDArray[np.float32]
    raw: Raw
    folds: NDArray[np.int64]
    stages: tuple[tuple[Fitted, Head], ...]

    @classmethod
    def of(cls, texts: WindowedTexts, vectors: Vectors) -> "Judged":
        """Both stages out of fold."""
        folds = np.array([cluster % FOLDS for cluster in clusters([example.text for example in texts.examples])])
        windows = np.zeros(len(texts.pieces))
        firsts = []
        for fold in range(FOLDS):
            seen = np.flatnonzero(folds != fold)
            firsts.append(fit(texts.whole[seen], _picked(texts.examples, seen), RECIPE))
            held = np.flatnonzero(folds[texts.owners] == fold)
            windows[held] = firsts[fold].logits(texts.cut[held])
        strongest = texts.strongest(windows)
        rows = vectors.of([texts.pieces[place] for place in strongest])
        second = np.zeros(len(texts.examples))
        heads = []
        for fold in range(FOLDS):
            seen, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            heads.append(fit_head(rows[seen], _picked(texts.examples, seen)))
            second[held] = heads[fold].logits(rows[held])
        return cls(rows, (windows[strongest], second), folds, tuple(zip(firsts, heads, strict=True)))


def cascade_without(name: str, texts: WindowedTexts, judged: Judged) -> tuple[Cascade, list[Example]]:
    """Trained without an attack set, copies of it, and the harmless sets it is told from; and what those hold."""
    sources = np.array([example.source for example in texts.examples])
    apart = np.isin(sources, [name, *JUDGED_HARMLESS])
    held, others = np.flatnonzero(apart), np.flatnonzero(~apart)
    kept = others[without_copies(_texts(texts, others), of=_texts(texts, held))]
    seen = weighed(_picked(texts.examples, kept))
    part = WindowedTexts(seen, texts.whole[kept], (), np.empty(0, np.int64), texts.whole[:0])
    raw = (judged.raw[0][kept], judged.raw[1][kept])
    return Cascade.fit(part, judged.rows[kept], raw, RECIPE), _picked(texts.examples, held)


def left_out(name: str, texts: WindowedTexts, judged: Judged, vectors: Vectors, *, threshold: float) -> dict[str, Any]:
    """An attack set judged by a cascade that was trained without it; `threshold` is the shipped one."""
    cascade, held = cascade_without(name, texts, judged)
    target = WindowedTexts.of(held, RECIPE)
    logits = cascade.linear.logits(target.cut)
    strongest = target.strongest(logits)
    second = cascade.head.logits(vectors.of([target.pieces[place] for place in strongest]))
    scores, hits = cascade.probabilities(logits[strongest], second), _hits(held)
    at_two = threshold_at(scores[~hits], false_positive_rate=0.02)
    return {
        "auroc": float(roc_auc_score(hits, scores)),
        "recall_at_2_percent": _share(scores[hits] >= at_two),
        "recall": _share(scores[hits] >= threshold),
        "fpr": _share(scores[~hits] >= threshold),
        "hits": int(hits.sum()),
        "harmless": int((~hits).sum()),
    }


def _by_set(scores: NDArray[np.float64], examples: Sequence[Example], threshold: float) -> Mapping[str, Any]:
    """AUROC over all, and the share of each set at or above the threshold."""
    hits, sources = _hits(examples), np.array([example.source for example in examples])
    return {
        "auroc": float(roc_auc_score(hits, scores)),
        "share_at_threshold": {
            str(source): _share(scores[sources == source] >= threshold) for source in dict.fromkeys(sources)
        },
    }


def _hits(examples: Sequence[Example]) -> NDArray[np.bool_]:
    return np.array([example.hit for example in examples], dtype=np.bool_)


def _picked(examples: Sequence[Example], places: NDArray[np.int64]) -> list[Example]:
    return [examples[int(place)] for place in places]


def _texts(texts: WindowedTexts, places: NDArray[np.int64]) -> list[str]:
    return [example.text for example in _picked(texts.examples, places)]


def _share(flags: NDArray[np.bool_]) -> float:
    return float(flags.mean())
