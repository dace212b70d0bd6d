"""The documents of a run: what is handed in of each, edition by edition, and what becomes of it. Pure; from a seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

WORD = "soundings"
_SENTENCES = (20, 60)
_WAITING, _BY_ADDRESS = 0.4, 0.3
_PLACES = ("bow", "stern", "galley", "foremast", "chartroom", "hold", "quarterdeck", "anchor locker")
_FINDINGS = ("dry", "leaking slowly", "freshly painted", "in need of oil", "as it was", "sealed with pitch")


class Act(StrEnum):
    """What is done to a document."""

    SUBMIT = "submit"
    RETRACT = "retract"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Step:
    """One act; `edition` is what is handed in, by content or `by_address`.

    `await_it`: the next act waits until searches find it.
    """

    act: Act
    edition: int = 0
    await_it: bool = False
    by_address: bool = False


@dataclass(frozen=True, slots=True)
class Script:
    """A document's life in one run."""

    document_id: str
    steps: tuple[Step, ...]

    @property
    def last_edition(self) -> int:
        """The newest that is handed in."""
        return max(step.edition for step in self.steps)

    @property
    def ends_as(self) -> Act:
        """`SUBMIT`: it can be found in the end."""
        return self.steps[-1].act


def write_scripts(seed: int, *, documents: int, prefix: str = "s") -> Sequence[Script]:
    """Documents that are updated in a hurry, and some that are retracted or deleted, and come back or do not."""
    rng = random.Random(seed)
    return [Script(f"{prefix}{seed}-d{number}", _steps(rng, number)) for number in range(documents)]


def _steps(rng: random.Random, number: int) -> tuple[Step, ...]:
    first = tuple(
        Step(Act.SUBMIT, edition, await_it=rng.random() < _WAITING, by_address=rng.random() < _BY_ADDRESS)
        for edition in range(1, rng.randint(2, 4))
    )
    withdrawn = {1: Act.RETRACT, 2: Act.DELETE}.get(number % 4)
    if withdrawn is None:
        return first
    last = first[-1]
    steps = (*first[:-1], replace(last, await_it=True), Step(withdrawn))
    return steps if rng.random() < 0.5 else (*steps, Step(Act.SUBMIT, last.edition + 1, await_it=True))


def text_of(document_id: str, edition: int) -> str:
    """An edition's text: long enough for several chunks, every sentence naming document and edition."""
    rng = random.Random(f"{document_id} {edition}")
    name = word_of(document_id)
    sentences = [
        f"Edition {edition} of {name} has {WORD} for the {rng.choice(_PLACES)}, found {rng.choice(_FINDINGS)} "
        f"after {rng.randint(1, 999)} hours."
        for _ in range(rng.randint(*_SENTENCES))
    ]
    paragraphs = [" ".join(sentences[at : at + 5]) for at in range(0, len(sentences), 5)]
    return "\n\n".join(paragraphs)


def word_of(document_id: str) -> str:
    """A word that only this document has."""
    return "log" + "".join(chr(ord("a") + int(one)) if one.isdigit() else "x" for one in document_id)
