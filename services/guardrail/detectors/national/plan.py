"""What the plan of a country's personal number is. Pure; the plans stand in the modules beside it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """How one kind of number is written and checked.

    `pattern` is matched between word borders, whatever the case. `check` gets it in capitals without separators.
    `alone` is the score without any announcing word: what form and check digits prove by themselves. `words`
    announce it, as alternatives of an expression.
    """

    rule: str
    pattern: str
    check: Callable[[str], bool]
    alone: float
    words: str
