"""Draws texts from the grammars beside it: attacks, and harmless texts in the same words.

Deterministic; used by `injection.py` to train on what no licensed set holds.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import yaml

_TERM = re.compile(r"\{([a-z_]+)\}")  # over the grammars of this folder only
_TRIES = 20
_SEED = 7


@dataclass(frozen=True, slots=True)
class Phrase:
    """A text, and the family that it was drawn from."""

    text: str
    family: str


def draw(grammar: str) -> tuple[Phrase, ...]:
    """Different texts of every family of `<grammar>_phrases.yaml`, as many as it asks for or can make."""
    source = files("services.guardrail.training").joinpath(f"{grammar}_phrases.yaml")
    document = yaml.safe_load(source.read_text("utf-8"))
    terms = {**document["terms"], **document.get("foreign_terms", {})}
    chance = np.random.Generator(np.random.PCG64(_SEED))
    phrases: dict[str, Phrase] = {}
    for family, entry in document["families"].items():
        wanted = len(phrases) + entry["texts"]
        for _ in range(entry["texts"] * _TRIES):
            if len(phrases) >= wanted:
                break
            text = _expand(_one_of(entry["patterns"], chance), terms, chance).strip()
            phrases.setdefault(text, Phrase(text, family))
    return tuple(phrases.values())


def _one_of(alternatives: list[str], chance: np.random.Generator) -> str:
    return alternatives[int(chance.integers(len(alternatives)))]


def _expand(pattern: str, terms: Mapping[str, list[str]], chance: np.random.Generator) -> str:
    def chosen(term: re.Match[str]) -> str:
        if term[1] not in terms:
            raise ValueError(f"{pattern!r} names {term[1]!r}, which is no term: {', '.join(sorted(terms))} are")
        return _expand(_one_of(terms[term[1]], chance), terms, chance)

    return _TERM.sub(chosen, pattern)
