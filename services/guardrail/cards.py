"""Calibration cards: what a detector was measured on, its figures, its threshold and where it is weak.

`python -m services.guardrail.cards` prints them as a table, `--json` in full. A detector's card stands in
`detectors/cards/<id>.json` (one may speak for several, by `ids`), or is its model's `models/<name>/card.json`.
"""

import argparse
import json
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.guardrail.detectors.catalogue import all_detectors
from services.guardrail.policy_file import default_policy

_WIDTH = 110


class CardError(Exception):
    """A card that says too little; the text begins with the file and names the field."""


class Card(BaseModel):
    """What every card says; what it says besides is kept.

    `measured` is the day of the figures (a model's card has none: training it again gives the same bytes).
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    ids: tuple[str, ...] = Field(default=(), description="the detectors it speaks for; its `id` where empty")
    id: str = Field(min_length=1, validation_alias=AliasChoices("id", "name"))
    purpose: str = Field(min_length=1)
    threshold: float | dict[str, float] = Field(description="on the detector's score, where the figures were taken")
    data: list[Any] | dict[str, Any] = Field(description="sources with their licences")
    figures: dict[str, Any]
    score: str = Field(default="", description="what the score is")
    limits: list[str] = Field(min_length=1, description="known weaknesses, a sentence each")
    measured: str = Field(default="", pattern=r"^(\d{4}-\d{2}-\d{2})?$")

    @model_validator(mode="after")
    def _is_measured(self) -> "Card":
        if not (self.data and self.figures) and not self.score:
            raise ValueError("data and figures may be empty only where `score` says why there is nothing to measure")
        return self

    @property
    def speaks_for(self) -> tuple[str, ...]:
        """Ids of detectors."""
        return self.ids or (self.id,)


@dataclass(frozen=True, slots=True)
class Row:
    """A detector, its version, the packaged policy's threshold, and its card where it has one."""

    detector: str
    version: str
    min_score: float
    card: Card | None


def read_cards() -> dict[str, Card]:
    """Cards by the detectors that they speak for; a detector's own goes before its model's.

    Raises:
        CardError: a card is no JSON, or says too little.
    """
    found: dict[str, Card] = {}
    for name, content in _card_files():
        card = _read(name, content)
        for detector in card.speaks_for:
            found.setdefault(detector, card)
    return found


def rows() -> list[Row]:
    """Every detector of the catalogue, in its order."""
    detectors = all_detectors()
    policy, cards = default_policy(detectors), read_cards()
    return [Row(one.id, one.version, policy.detectors[one.id].min_score, cards.get(one.id)) for one in detectors]


def told(row: Row) -> str:
    """One detector's lines."""
    head = f"{row.detector}  version {row.version}, told from a score of {row.min_score}"
    if row.card is None:
        return f"{head}\n    no card"
    card = row.card
    measured = f", measured {card.measured}" if card.measured else ""
    lines = [
        f"finds    {card.purpose}{measured}",
        f"data     {'; '.join(_sources(card.data)) or 'none'}",
        f"figures  {'; '.join(_figures(card.figures)) or 'none'}",
        *([f"score    {card.score}"] if card.score else []),
        *(f"weak     {limit}" for limit in card.limits),
    ]
    wrapped = (textwrap.fill(line, _WIDTH, initial_indent="    ", subsequent_indent=" " * 13) for line in lines)
    return "\n".join((head, *wrapped))


def _card_files() -> Iterator[tuple[str, str]]:
    package = files("services.guardrail")
    own = package.joinpath("detectors", "cards")
    places = [own.joinpath(one.name) for one in own.iterdir() if one.name.endswith(".json")]
    places += [one.joinpath("card.json") for one in package.joinpath("models").iterdir() if one.is_dir()]
    for place in sorted((one for one in places if one.is_file()), key=lambda one: (one.name == "card.json", str(one))):
        yield str(place), place.read_text("utf-8")


def _read(name: str, content: str) -> Card:
    try:
        return Card.model_validate_json(content)
    except ValidationError as exc:
        problem = exc.errors()[0]
        field = ".".join(str(part) for part in problem["loc"]) or "the card"
        raise CardError(f"{name}: {field}: {problem['msg']}") from exc


def _sources(data: Sequence[Any] | Mapping[str, Any]) -> Iterator[str]:
    if isinstance(data, Mapping):
        yield from (f"{name}: {text}" for name, text in data.items())
        return
    for entry in data:
        if isinstance(entry, Mapping):
            yield f"{entry.get('source', '?')} ({entry.get('licence', 'no licence told')})"
        else:
            yield str(entry)


def _figures(figures: Mapping[str, Any], under: str = "") -> Iterator[str]:
    for name, value in figures.items():
        path = f"{under}{name}"
        if isinstance(value, Mapping):
            yield from _figures(value, f"{path}.")
        else:
            yield f"{path} {value}"


def _document(described: Iterable[Row]) -> dict[str, Any]:
    return {
        row.detector: {
            "version": row.version,
            "min_score": row.min_score,
            "card": row.card.model_dump() if row.card else None,
        }
        for row in described
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the cards; 1 where one cannot be read."""
    parser = argparse.ArgumentParser(prog="services.guardrail.cards", description=__doc__)
    parser.add_argument("--json", action="store_true", help="everything, as one JSON object")
    asked = parser.parse_args(arguments)
    try:
        described = rows()
    except CardError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    shown = json.dumps(_document(described)) if asked.json else "\n\n".join(told(row) for row in described)
    sys.stdout.write(f"{shown}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
