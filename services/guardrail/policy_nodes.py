"""Walks the nodes of a policy file, which know their lines, so that every mistake is told with its place.

Pure; used by `policy_file.py` and `policy_options.py`.
"""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import NoReturn

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

MAX_FILE_CHARS = 262_144


class PolicyError(Exception):
    """A policy file that cannot be followed; the text begins with `file:line:`, one line for each file."""


class PolicyNodes:
    """The nodes of one file."""

    def __init__(self, source: str, *, file: str) -> None:
        self._file = file
        self.root = self._compose(source)

    def items(self, node: Node, what: str, known: Sequence[str]) -> Iterator[tuple[ScalarNode, Node]]:
        """The pairs of a mapping whose keys are known names, each at most once."""
        for key, value in self.pairs(node, what, hint=f" with {', '.join(known)}"):
            if key.value not in known:
                self.refuse(key, unknown(f"name in {what}", key.value, known))
            yield key, value

    def pairs(self, node: Node, what: str, *, hint: str = "") -> Iterator[tuple[ScalarNode, Node]]:
        """The pairs of a mapping, each key at most once."""
        if not isinstance(node, MappingNode):
            self.refuse(node, f"{what} must be a mapping{hint}")
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self.refuse(key, f"unknown name in {what}: only plain names are known")
            if key.value in seen:
                self.refuse(key, f"{key.value} is stated twice in {what}")
            seen.add(key.value)
            yield key, value

    def choice(self, name: str, node: Node, known: Sequence[str]) -> str:
        """One of the known values."""
        scalar = self.scalar(name, node)
        if scalar not in known:
            self.refuse(node, unknown(f"value of {name}", scalar, known))
        return scalar

    def flag(self, name: str, node: Node) -> bool:
        """`true` or `false`."""
        return self.choice(name, node, ("true", "false")) == "true"

    def number(self, name: str, node: Node, *, least: float, most: float) -> float:
        """A number within bounds."""
        text = self.scalar(name, node)
        try:
            number = float(text)
        except ValueError:
            number = least - 1.0
        if not least <= number <= most:
            self.refuse(node, f"{name} must be {least:g} to {most:g}, got {text!r}")
        return number

    def scalar(self, name: str, node: Node) -> str:
        """A single value, as it is written."""
        if not isinstance(node, ScalarNode):
            self.refuse(node, f"{name} must be a single value")
        return str(node.value)

    def refuse(self, node: Node, problem: str) -> NoReturn:
        """Tell the mistake with its place."""
        raise PolicyError(f"{self._file}:{node.start_mark.line + 1}: {problem}")

    def _compose(self, source: str) -> Node | None:
        if len(source) > MAX_FILE_CHARS:
            raise PolicyError(f"{self._file}:1: a policy has at most {MAX_FILE_CHARS} characters")
        try:
            return yaml.compose(source, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as exc:
            line = exc.problem_mark.line + 1 if exc.problem_mark else 1
            raise PolicyError(f"{self._file}:{line}: not YAML: {exc.problem}") from exc
        except (yaml.YAMLError, RecursionError) as exc:
            raise PolicyError(f"{self._file}:1: not YAML: {exc}") from exc


def unknown(what: str, got: str, known: Sequence[str]) -> str:
    """What is not known, and what could have been meant."""
    near = get_close_matches(got, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"unknown {what}: {got!r}; {hint}"
