"""Verdicts: what a detector found in a text, and what the policy does about it.

Pure; made by the guardrail, carried by the gateway, counted by the drift monitor.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Surface(StrEnum):
    """Which text a verdict is about."""

    INPUT = "input"
    RETRIEVED = "retrieved"
    OUTPUT = "output"


class Action(StrEnum):
    """What is done with a text, weakest first; compared by `strength`, never as strings."""

    ALLOW = "allow"
    FLAG = "flag"
    REDACT = "redact"
    BLOCK = "block"

    @property
    def strength(self) -> int:
        """0 for allow to 3 for block."""
        return _STRENGTH[self]


_STRENGTH = {action: position for position, action in enumerate(Action)}


def strongest(actions: Iterable[Action]) -> Action:
    """The strongest of the actions; allow where there is none."""
    return max(actions, key=lambda action: action.strength, default=Action.ALLOW)


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A piece of a text in characters: `text[start:end]`."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"a span needs 0 <= start <= end, got {self.start}..{self.end}")


@dataclass(frozen=True, slots=True)
class Finding:
    """What a detector saw, before any policy: a rule that matched, where, and how sure it is (0 to 1).

    `kind` names the thing for a placeholder (`EMAIL`); empty where there is nothing to replace.
    `message` is for people and holds no part of the judged text.
    """

    rule: str
    score: float
    span: Span | None = None
    kind: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A finding with the action that a policy gave it; `shadow` verdicts are told and not acted upon."""

    surface: Surface
    detector: str
    detector_version: str
    action: Action
    score: float
    rule: str
    span: Span | None
    message: str
    policy_version: str
    chunk_id: str = ""
    shadow: bool = False


def combined_action(verdicts: Iterable[Verdict]) -> Action:
    """The strongest action of the verdicts that count."""
    return strongest(verdict.action for verdict in verdicts if not verdict.shadow)
