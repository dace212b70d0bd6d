"""Linear models of texts: how likely a text is what the model was trained to find, in about a millisecond.

Loaded from `models/<name>` by the detectors; made by `training/`. numpy only: no training library, no pickle.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from services.guardrail.text_features import FeatureSettings, TextReader

FORMAT = 1
"""Of the artifact; another one was written by another version of `training/`."""

WEIGHTS_FILE, CARD_FILE = "weights.safetensors", "card.json"


class ModelError(Exception):
    """An artifact that cannot be used; the message names the file, what is wrong and what to do."""


@dataclass(frozen=True)
class LinearTextModel:
    """Weights over hashed words and characters, calibrated: 0.8 means that four of five such texts are hits."""

    name: str
    version: str
    threshold: float
    card: Mapping[str, Any]
    tensors: Mapping[str, NDArray[np.generic]]
    weights: NDArray[np.float32]
    bias: float
    reader: TextReader

    @classmethod
    def load(cls, name: str, *, folder: Traversable | None = None) -> Self:
        """The model of `folder/<name>`, by default of those shipped.

        Raises:
            ModelError: a file is missing, damaged, or of another format.
        """
        place = (folder or files("services.guardrail").joinpath("models")).joinpath(name)
        card = _read_card(place, name)
        tensors = _read_tensors(place, card, name)
        try:
            settings = FeatureSettings(**card["features"])
            weights = tensors["weights"].astype(np.float32)
            bias, threshold, version = float(tensors["bias"][0]), float(card["threshold"]), str(card["version"])
        except (KeyError, TypeError, ValueError) as exc:
            raise _error(name, f"is incomplete: {exc}") from exc
        if weights.shape != (settings.size,):
            raise _error(name, f"has {weights.shape} weights where its card asks for {settings.size}")
        return cls(name, version, threshold, card, tensors, weights, bias, TextReader(settings))

    def logits(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Log-odds of each text, in order; many short texts cost little more than one."""
        read = self.reader.read_all(texts)
        found = np.bincount(read.rows, weights=self.weights[read.places] * read.values, minlength=len(texts))
        return found.astype(np.float64) + self.bias

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Calibrated probability of each text, in order; a text's first 20,000 characters are read."""
        return sigmoid(self.logits(texts))


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of log-odds, without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)), dtype=np.float64)


def _read_card(place: Traversable, name: str) -> Mapping[str, Any]:
    try:
        card = json.loads(place.joinpath(CARD_FILE).read_text("utf-8"))
    except FileNotFoundError as exc:
        raise _error(name, f"has no {CARD_FILE}") from exc
    except ValueError as exc:
        raise _error(name, f"has a {CARD_FILE} that is no JSON: {exc}") from exc
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else card
        raise _error(name, f"is of format {found!r}, and this version reads {FORMAT}")
    return card


def _read_tensors(place: Traversable, card: Mapping[str, Any], name: str) -> Mapping[str, NDArray[np.generic]]:
    try:
        content = place.joinpath(WEIGHTS_FILE).read_bytes()
    except FileNotFoundError as exc:
        raise _error(name, f"has no {WEIGHTS_FILE}") from exc
    found = sha256(content).hexdigest()
    if found != card.get("weights_sha256"):
        raise _error(name, f"has a {WEIGHTS_FILE} with hash {found[:12]}…, not the one that its card names")
    try:
        return load(content)
    except SafetensorError as exc:
        raise _error(name, f"has a {WEIGHTS_FILE} that cannot be read: {exc}") from exc


def _error(name: str, problem: str) -> ModelError:
    return ModelError(
        f"the model {name!r} {problem}: train it anew (python -m services.guardrail.training {name}) or install again"
    )
