"""How likely a text is an injection: words and characters of its windows first, a vector where they are unsure.

Pure but for the embedder that the subject brings; trained by `training/injection.py`, asked by `detector.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from servicekit.domain.verdict import Span
from services.guardrail.detectors.detector import Embed, Subject
from services.guardrail.normalizing import NormalizedText
from services.guardrail.text_model import LinearTextModel, ModelError, sigmoid
from services.guardrail.windows import windows

NAME = "injection"
_MAX_WINDOWS_OF_A_VIEW = 100
"""Of views but the first: a text that is all disguise may cost about a third more, not a multiple."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The strongest window: where, in which view, and its log-odds by the first stage."""

    view: NormalizedText
    span: Span
    logit: float

    @property
    def text(self) -> str:
        """What stands in the window."""
        return self.view.text[self.span.start : self.span.end]

    @property
    def probability(self) -> float:
        """By the first stage."""
        return probability_of(self.logit)


def probability_of(logit: float) -> float:
    """Calibrated log-odds as a probability."""
    return float(sigmoid(np.array([logit]))[0])


@dataclass(frozen=True)
class InjectionModel:
    """Both stages of the shipped artifact."""

    linear: LinearTextModel
    head: NDArray[np.float32]
    unsure: tuple[float, float]
    scale: float
    bias: float

    @classmethod
    def load(cls) -> Self:
        """The shipped model.

        Raises:
            ModelError: the artifact is missing or damaged.
        """
        linear = LinearTextModel.load(NAME)
        try:
            second: Mapping[str, Any] = linear.card["embedding"]
            low, high = map(float, second["unsure"])
            head = linear.tensors["head"].astype(np.float32)
            return cls(linear, head, (low, high), float(second["scale"]), float(second["bias"]))
        except (KeyError, TypeError, ValueError) as exc:
            raise ModelError(f"the model {NAME!r} has no usable second stage ({exc}): train it anew") from exc

    @property
    def version(self) -> str:
        """Of the artifact."""
        return self.linear.version

    @property
    def threshold(self) -> float:
        """The probability from which the default policy acts."""
        return self.linear.threshold

    def read(self, subject: Subject) -> Reading:
        """The strongest window of all views, the first of equals."""
        return max((self._strongest(view, first=not place) for place, view in enumerate(subject.views)), key=_by_logit)

    def is_unsure(self, probability: float) -> bool:
        """Whether the first stage's word is not enough."""
        return self.unsure[0] < probability < self.unsure[1]

    def with_vector(self, reading: Reading, embed: Embed) -> float:
        """The probability by both stages.

        Raises:
            BackendUnavailable, BackendTimeout: the embedder gave no vector.
            ValueError: it gave one of another model.
        """
        vector = np.asarray(embed([reading.text])[0], dtype=np.float32)
        if vector.shape != self.head.shape:
            wanted = self.linear.card["embedding"]["model"]
            raise ValueError(f"the embedder's vectors have {len(vector)} values, {wanted} gives {len(self.head)}")
        return probability_of(self.scale * reading.logit + float(np.dot(self.head, vector)) + self.bias)

    def _strongest(self, view: NormalizedText, *, first: bool) -> Reading:
        spans = windows(view.text) if first else windows(view.text, at_most=_MAX_WINDOWS_OF_A_VIEW)
        logits = self.linear.logits([view.text[span.start : span.end] for span in spans])
        best = int(np.argmax(logits))
        return Reading(view, spans[best], float(logits[best]))


def _by_logit(reading: Reading) -> float:
    return reading.logit
