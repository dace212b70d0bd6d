"""Writes a trained model: weights as safetensors, and the card that says what it was made of and how good it is.

Called by the training modules; `text_model.py` reads what it writes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from services.guardrail.text_features import FeatureSettings
from services.guardrail.text_model import CARD_FILE, FORMAT, WEIGHTS_FILE
from services.guardrail.training.fitting import Example, Fitted, quantised
from services.guardrail.training.sets import SETS, TextSet, fingerprint

OWN_LICENCE = "Apache-2.0 (written for this project)"
_DIGITS = 4


@dataclass(frozen=True)
class Card:
    """What a model's card says; `figures` and `thresholds` come from texts that the judged model had not seen."""

    name: str
    purpose: str
    recipe_version: str
    features: FeatureSettings
    threshold: float
    data: Sequence[Mapping[str, Any]]
    splits: str
    figures: Mapping[str, Any]
    thresholds: Mapping[str, float]
    limits: Sequence[str] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


def data_entries(
    examples: Sequence[Example],
    *,
    sets: Mapping[str, TextSet] = SETS,
    licences: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """An entry a source: texts, licence, origin and hash; `licences` of those that are none of `sets`."""
    entries = []
    for source in dict.fromkeys(example.source for example in examples):
        texts = [example.text for example in examples if example.source == source]
        known = sets.get(source)
        entries.append(
            {
                "source": source,
                "texts": len(texts),
                "hits": sum(example.hit for example in examples if example.source == source),
                "licence": known.licence if known else (licences or {}).get(source, OWN_LICENCE),
                "origin": known.origin if known else "services/guardrail/training",
                "sha256": fingerprint(texts),
            }
        )
    return entries


def write(card: Card, fitted: Fitted, out: Path, *, tensors: Mapping[str, NDArray[np.generic]] | None = None) -> Path:
    """`out/<name>/{weights.safetensors,card.json}`, the same bytes for the same model; returns the folder."""
    folder = out / card.name
    folder.mkdir(parents=True, exist_ok=True)
    everything: dict[str, NDArray[np.generic]] = {
        "weights": quantised(fitted.weights),
        "bias": np.array([fitted.bias], dtype=np.float32),
        **(tensors or {}),
    }
    content = save({name: np.ascontiguousarray(everything[name]) for name in sorted(everything)})
    digest = sha256(content).hexdigest()
    (folder / WEIGHTS_FILE).write_bytes(content)
    document = {
        "format": FORMAT,
        "name": card.name,
        "version": f"{card.recipe_version}-{digest[:8]}",
        "purpose": card.purpose,
        "threshold": round(card.threshold, _DIGITS),
        "thresholds_at_false_positive_rate": card.thresholds,
        "figures": card.figures,
        "splits": card.splits,
        "limits": list(card.limits),
        "data": list(card.data),
        "training": f"python -m services.guardrail.training {card.name} --data DATA --out services/guardrail/models",
        "features": {
            "bits": card.features.bits,
            "shortest_run": card.features.shortest_run,
            "longest_run": card.features.longest_run,
        },
        "weights_sha256": digest,
        **card.more,
    }
    text = json.dumps(_rounded(document), indent=2, ensure_ascii=False) + "\n"
    (folder / CARD_FILE).write_text(text, "utf-8")
    return folder


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, Mapping):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    return value
