"""Fits a linear model of texts with scikit-learn, calibrates it, and says which threshold keeps false alarms rare.

Used by the training modules; the running service never imports it (extra `guardrail-training`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from services.guardrail.text_features import FeatureSettings, TextReader

_ROUNDS = 2_000
_COMMONEST_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Example:
    """A text, whether it is what is looked for, where it is from, and how much it counts."""

    text: str
    hit: bool
    source: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is fitted: its features, and how freely weights may grow (`strength`, logistic regression's C)."""

    features: FeatureSettings = field(default_factory=FeatureSettings)
    strength: float = 4.0
    rare_features_count: bool = True


@dataclass(frozen=True)
class Fitted:
    """Weights for the features as read, and a bias: log-odds before calibration."""

    weights: NDArray[np.float64]
    bias: float

    def logits(self, matrix: csr_matrix) -> NDArray[np.float64]:
        """Log-odds of every row."""
        return np.asarray(matrix @ self.weights, dtype=np.float64) + self.bias

    def calibrated(self, calibration: "Calibration") -> "Fitted":
        """The same with the calibration folded in."""
        return Fitted(self.weights * calibration.slope, self.bias * calibration.slope + calibration.offset)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt's: log-odds = slope * raw log-odds + offset (Platt 1999)."""

    slope: float
    offset: float

    def of(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated log-odds."""
        return np.asarray(self.slope * logits + self.offset, dtype=np.float64)


def matrix_of(texts: Iterable[str], settings: FeatureSettings) -> csr_matrix:
    """A row a text, as the served model will read it."""
    reader = TextReader(settings)
    rows = [reader.read(text) for text in texts]
    ends = np.cumsum([0, *(len(row.places) for row in rows)])
    places = np.concatenate([row.places for row in rows]) if rows else np.empty(0, np.int64)
    values = np.concatenate([row.values for row in rows]) if rows else np.empty(0, np.float32)
    return csr_matrix((values.astype(np.float64), places, ends), shape=(len(rows), settings.size))


def fit(matrix: csr_matrix, examples: Sequence[Example], recipe: Recipe) -> Fitted:
    """Logistic regression; the same examples in the same order give the same weights.

    Features that many texts share are held back by their inverse document frequency, which acts as a prior on their
    weights and is folded into them, so that serving needs no second table.
    """
    hits, counts = targets_of(examples)
    scale = _rarity(matrix) if recipe.rare_features_count else np.ones(matrix.shape[1])
    scaled = matrix.copy()
    scaled.data *= scale[scaled.indices]
    model = LogisticRegression(C=recipe.strength, solver="lbfgs", max_iter=_ROUNDS, tol=1e-5)
    model.fit(scaled, hits, sample_weight=counts)
    return Fitted(np.asarray(model.coef_[0] * scale, dtype=np.float64), float(model.intercept_[0]))


def out_of_fold(
    matrix: csr_matrix, examples: Sequence[Example], folds: Sequence[object], recipe: Recipe
) -> NDArray[np.float64]:
    """Raw log-odds of every example by a model that saw nothing of its fold; `folds` names each example's."""
    names = np.array([str(fold) for fold in folds])
    logits = np.zeros(len(names))
    for name in sorted(set(names)):
        seen = np.flatnonzero(names != name)
        fitted = fit(matrix[seen], [examples[int(place)] for place in seen], recipe)
        held = np.flatnonzero(names == name)
        logits[held] = fitted.logits(matrix[held])
    return logits


def calibrate(logits: NDArray[np.float64], examples: Sequence[Example]) -> Calibration:
    """Platt's two numbers from log-odds that were not fitted on these examples."""
    hits, counts = targets_of(examples)
    model = LogisticRegression(C=1e3, max_iter=_ROUNDS).fit(logits.reshape(-1, 1), hits, sample_weight=counts)
    return Calibration(float(model.coef_[0, 0]), float(model.intercept_[0]))


def threshold_at(scores: NDArray[np.float64], *, false_positive_rate: float) -> float:
    """The lowest threshold at which at most that share of these harmless texts' scores reach it."""
    ordered = np.sort(scores)[::-1]
    allowed = int(np.floor(false_positive_rate * len(ordered)))
    return float(np.nextafter(ordered[min(allowed, len(ordered) - 1)], np.inf))


def targets_of(examples: Sequence[Example]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Hits, and what each example counts: both sides together weigh the same."""
    hits = np.array([example.hit for example in examples], dtype=np.int64)
    counts = np.array([example.weight for example in examples], dtype=np.float64)
    for side in (0, 1):
        total = counts[hits == side].sum()
        if not total:
            raise ValueError(f"no examples {'to find' if side else 'to leave alone'}: both kinds are needed to fit")
        counts[hits == side] *= len(hits) / (2 * total)
    return hits, counts


def quantised(values: NDArray[np.float64]) -> NDArray[np.float16]:
    """Weights in half precision, those of no consequence as 0."""
    kept = np.where(np.abs(values) < np.abs(values).max(initial=0.0) * 1e-4, 0.0, values)
    return kept.astype(np.float16)


def _rarity(matrix: csr_matrix) -> NDArray[np.float64]:
    rows = matrix.shape[0]
    frequency = np.bincount(matrix.indices, minlength=matrix.shape[1])
    rarity = np.log((1 + rows) / (1 + frequency))
    return np.asarray(np.maximum(rarity, _COMMONEST_SHARE) / rarity.max(initial=1.0), dtype=np.float64)
