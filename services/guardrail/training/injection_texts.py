"""What the model of injections learns from: sets by licence, phrases of our own, and what each of them weighs.

Used by `injection.py`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from services.guardrail.training.fitting import Example
from services.guardrail.training.phrases import draw
from services.guardrail.training.sets import SETS
from services.guardrail.windows import WINDOW_CHARS, windows

ATTACK_SETS = ("inthewild", "giskard", "cyberseceval")
JUDGED_HARMLESS = ("notinject_one", "xstest_safe")
"""Harmless texts with trigger words: left out of training wherever a whole set is."""

SET_WEIGHTS: Mapping[str, float] = {
    "inthewild": 3.0,
    "giskard": 0.5,
    "cyberseceval": 2.0,
    "phrases.attack": 3.0,
    "notinject_one": 0.7,
    "xstest_safe": 0.7,
    "nq_open": 0.7,
    "mtrag": 1.0,
    "windows.harmless": 2.0,
    "mtrag_passages": 1.0,
    "ragchecker": 0.3,
    "llmbar": 0.7,
    "halueval_questions": 0.5,
    "halueval_passages": 0.5,
    "bipia_emails": 0.3,
    "personal_sentences": 0.7,
    "python_topics": 1.0,
    "phrases.harmless": 3.0,
    "phrases.inserted": 2.0,
}
"""What a whole set weighs: not in proportion to its texts, lest the largest decides."""

_AROUND = ("mtrag_passages", "halueval_passages", "python_topics")
_PASSAGES = ", ".join(f"{name} ({SETS[name].licence})" for name in _AROUND)
LICENCES: Mapping[str, str] = {
    "phrases.inserted": f"Apache-2.0 (written for this project), in passages of {_PASSAGES}",
    "windows.harmless": f"of {_PASSAGES}",
}
"""Of the sets that are made here."""
_INSERTED, _INSERTED_CHARS, _SEED = 800, range(60, 251), 11


def load_examples(data: Path) -> list[Example]:
    """Every text that trains, once: licensed sets, then phrases of our own."""
    found: dict[str, Example] = {}
    for name in SET_WEIGHTS:
        if name in _MADE:
            texts: Sequence[str] = _MADE[name](data)
        elif name.startswith("phrases."):
            grammar = name.removeprefix("phrases.")
            texts = [phrase.text for phrase in draw(grammar)]
        else:
            texts = [text for text in SETS[name].read(data) if text.strip()]
        for text in texts:
            found.setdefault(text, Example(text, is_attack(name), name))
    return weighed(list(found.values()))


def is_attack(source: str) -> bool:
    """Whether a set's texts are what is looked for."""
    return source in ATTACK_SETS or source in {"phrases.attack", "phrases.inserted"}


def harmless_windows(data: Path) -> list[str]:
    """The passages that attacks are laid in, as windows without any: else their words would speak of attacks."""
    passages = [text for name in _AROUND for text in SETS[name].read(data) if len(text) >= WINDOW_CHARS]
    return [text[span.start : span.end] for text in passages for span in windows(text)]


def inserted(data: Path) -> list[str]:
    """Attacks of our own between the sentences of harmless passages: what a window of a long text looks like."""
    passages = [text for name in _AROUND for text in SETS[name].read(data) if len(text) >= WINDOW_CHARS]
    attacks = [phrase.text for phrase in draw("attack") if len(phrase.text) in _INSERTED_CHARS]
    chance = np.random.Generator(np.random.PCG64(_SEED))
    made = []
    for _ in range(_INSERTED):
        passage = passages[int(chance.integers(len(passages)))]
        attack = attacks[int(chance.integers(len(attacks)))]
        start = int(chance.integers(len(passage) - WINDOW_CHARS + len(attack)))
        around = passage[start : start + WINDOW_CHARS - len(attack)]
        place = around.find(" ", int(chance.integers(len(around)))) + 1
        made.append(f"{around[:place]}{attack} {around[place:]}")
    return made


def weighed(examples: Sequence[Example]) -> list[Example]:
    """Each with its share of its set's weight."""
    sizes = Counter(example.source for example in examples)
    return [replace(example, weight=SET_WEIGHTS[example.source] / sizes[example.source]) for example in examples]


_MADE = {"windows.harmless": harmless_windows, "phrases.inserted": inserted}
"""Sets that are made of others."""
