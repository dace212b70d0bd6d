"""The two stages that are trained together: words and characters first, a text's vector where they are unsure.

Used by `injection.py`; `detectors/injection/model.py` serves what `Cascade.tensors` and `settings` hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from services.guardrail.text_model import sigmoid
from services.guardrail.training.fitting import (
    Calibration,
    Example,
    Fitted,
    Recipe,
    calibrate,
    fit,
    matrix_of,
    targets_of,
)
from services.guardrail.windows import windows

SHARE = 0.2
"""Of the vector's log-odds in those of both; the best of 0.05 to 0.7 on sets left out."""

UNSURE = (0.02, 0.98)
"""Probabilities between which the vector is asked for."""

_HEAD_STRENGTH = 3.0


@dataclass(frozen=True)
class WindowedTexts:
    """Examples as they are fitted (whole) and as they are judged (by windows)."""

    examples: Sequence[Example]
    whole: csr_matrix
    pieces: Sequence[str]
    owners: NDArray[np.int64]
    cut: csr_matrix

    @classmethod
    def of(cls, examples: Sequence[Example], recipe: Recipe) -> "WindowedTexts":
        """Read every text once whole and once by its windows."""
        spans = [(place, span) for place, example in enumerate(examples) for span in windows(example.text)]
        pieces = [examples[place].text[span.start : span.end] for place, span in spans]
        return cls(
            examples,
            matrix_of((example.text for example in examples), recipe.features),
            pieces,
            np.array([place for place, _ in spans], dtype=np.int64),
            matrix_of(pieces, recipe.features),
        )

    def strongest(self, logits: NDArray[np.float64]) -> NDArray[np.int64]:
        """Of each text the window with the highest log-odds, the first of equals."""
        order = np.lexsort((-np.arange(len(logits)), logits, self.owners))
        is_last = np.append(self.owners[order][1:] != self.owners[order][:-1], True)
        return np.asarray(order[is_last], dtype=np.int64)


@dataclass(frozen=True)
class Head:
    """Weights over a text's vector."""

    weights: NDArray[np.float64]
    bias: float

    def logits(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """Log-odds of every vector."""
        return np.asarray(vectors @ self.weights, dtype=np.float64) + self.bias


def fit_head(vectors: NDArray[np.float32], examples: Sequence[Example]) -> Head:
    """Logistic regression over vectors."""
    hits, counts = targets_of(examples)
    model = LogisticRegression(C=_HEAD_STRENGTH, max_iter=2_000).fit(vectors, hits, sample_weight=counts)
    return Head(np.asarray(model.coef_[0], dtype=np.float64), float(model.intercept_[0]))


def mixed(linear: NDArray[np.float64], head: NDArray[np.float64]) -> NDArray[np.float64]:
    """Raw log-odds of both stages."""
    return np.asarray((1 - SHARE) * linear + SHARE * head, dtype=np.float64)


@dataclass(frozen=True)
class Cascade:
    """Both stages with their calibrations."""

    linear: Fitted
    head: Head
    alone: Calibration
    together: Calibration

    @classmethod
    def fit(
        cls,
        texts: WindowedTexts,
        vectors: NDArray[np.float32],
        raw: tuple[NDArray[np.float64], NDArray[np.float64]],
        recipe: Recipe,
    ) -> "Cascade":
        """Fit on everything; calibrate on `raw`, log-odds of the stages that were made out of fold."""
        return cls(
            fit(texts.whole, texts.examples, recipe),
            fit_head(vectors, texts.examples),
            calibrate(raw[0], texts.examples),
            calibrate(mixed(*raw), texts.examples),
        )

    def probabilities(self, linear: NDArray[np.float64], head: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """What the served cascade says of these raw log-odds; `head` None: where no embedder is configured."""
        first = sigmoid(self.alone.of(linear))
        if head is None:
            return first
        unsure = (first > UNSURE[0]) & (first < UNSURE[1])
        return np.where(unsure, sigmoid(self.together.of(mixed(linear, head))), first)

    @property
    def calibrated_linear(self) -> Fitted:
        """The first stage as it is served by itself."""
        return self.linear.calibrated(self.alone)

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """The second stage: weights over the vector, in half precision."""
        return {"head": (self.together.slope * SHARE * self.head.weights).astype(np.float16)}

    def settings(self, embedding_model: str) -> dict[str, Any]:
        """What the second stage makes of the first one's calibrated log-odds: scale * first + head . vector + bias."""
        scale = self.together.slope * (1 - SHARE) / self.alone.slope
        bias = self.together.slope * SHARE * self.head.bias + self.together.offset - scale * self.alone.offset
        return {"embedding": {"model": embedding_model, "unsure": list(UNSURE), "scale": scale, "bias": bias}}
