"""Reads policy files: every mistake is told with its file and line, and with what could have been meant.

Pure but for the packaged default; used by `policy_store.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from importlib.resources import files
from typing import NoReturn

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from servicekit.domain.verdict import Action, Surface
from services.guardrail.detectors.detector import Detector
from services.guardrail.policy import DetectorPolicy, OnFailure, Policy

MAX_FILE_CHARS = 262_144
_OFF = "off"
_SETTINGS = (*(surface.value for surface in Surface), "min_score", "on_failure", "shadow")
_ACTIONS = (_OFF, *(action.value for action in Action))
_NOTHING = DetectorPolicy(actions={}, min_score=0.0, on_failure=OnFailure.OPEN, shadow=False)


class PolicyError(Exception):
    """A policy file that cannot be followed; the text begins with `file:line:`."""


def default_policy(detectors: Sequence[Detector]) -> Policy:
    """The packaged default policy."""
    source = files("services.guardrail").joinpath("default_policy.yaml").read_text("utf-8")
    nothing = Policy("default", {detector.id: _NOTHING for detector in detectors})
    return parse_policy(source, name="default", file="default_policy.yaml", under=nothing, detectors=detectors)


def parse_policy(source: str, *, name: str, file: str, under: Policy, detectors: Sequence[Detector]) -> Policy:
    """`under`, changed by what the file states.

    Raises:
        PolicyError: not YAML, or an unknown detector, surface, action or setting, or one that makes no sense.
    """
    reader = _Reader(file, {detector.id: detector for detector in detectors})
    root = reader.compose(source)
    merged = dict(under.detectors)
    for key, value in reader.items(root, "the policy", ("detectors",)) if root else ():
        for detector_key, settings in reader.items(value, key.value, tuple(reader.detectors)):
            merged[detector_key.value] = reader.detector(detector_key.value, settings, merged[detector_key.value])
    return Policy(name, merged)


class _Reader:
    """Walks a file's nodes, which know their lines."""

    def __init__(self, file: str, detectors: Mapping[str, Detector]) -> None:
        self._file = file
        self.detectors = detectors

    def compose(self, source: str) -> Node | None:
        if len(source) > MAX_FILE_CHARS:
            raise PolicyError(f"{self._file}:1: a policy has at most {MAX_FILE_CHARS} characters")
        try:
            return yaml.compose(source, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as exc:
            line = exc.problem_mark.line + 1 if exc.problem_mark else 1
            raise PolicyError(f"{self._file}:{line}: not YAML: {exc.problem}") from exc
        except yaml.YAMLError as exc:
            raise PolicyError(f"{self._file}:1: not YAML: {exc}") from exc

    def items(self, node: Node, what: str, known: Sequence[str]) -> Iterator[tuple[ScalarNode, Node]]:
        """The pairs of a mapping whose keys are known names, each at most once."""
        if not isinstance(node, MappingNode):
            self.refuse(node, f"{what} must be a mapping with {', '.join(known)}")
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, ScalarNode) or key.value not in known:
                self.refuse(key, _unknown(f"name in {what}", getattr(key, "value", "?"), known))
            if key.value in seen:
                self.refuse(key, f"{key.value} is stated twice in {what}")
            seen.add(key.value)
            yield key, value

    def detector(self, name: str, node: Node, under: DetectorPolicy) -> DetectorPolicy:
        result = under
        for key, value in self.items(node, name, _SETTINGS):
            if not isinstance(value, ScalarNode):
                self.refuse(value, f"{name}.{key.value} must be a single value")
            if key.value == "min_score":
                result = replace(result, min_score=self._score(f"{name}.min_score", value))
            elif key.value == "on_failure":
                choice = self._choice(f"{name}.on_failure", value, tuple(OnFailure))
                result = replace(result, on_failure=OnFailure(choice))
            elif key.value == "shadow":
                shadow = self._choice(f"{name}.shadow", value, ("true", "false")) == "true"
                result = replace(result, shadow=shadow)
            else:
                result = replace(result, actions=self._actions(name, Surface(key.value), value, result))
        return result

    def _actions(
        self, name: str, surface: Surface, node: ScalarNode, under: DetectorPolicy
    ) -> Mapping[Surface, Action]:
        choice = self._choice(f"{name}.{surface}", node, _ACTIONS)
        kept = {known: action for known, action in under.actions.items() if known is not surface}
        if choice == _OFF:
            return kept
        detector = self.detectors[name]
        if surface not in detector.surfaces:
            where = ", ".join(sorted(detector.surfaces))
            self.refuse(node, f"{name} judges {where} only: {surface} must be off, got {choice!r}")
        if choice == Action.REDACT and not detector.redacts:
            self.refuse(node, f"{name} cannot redact: choose off, allow, flag or block")
        return {**kept, surface: Action(choice)}

    def _score(self, name: str, node: ScalarNode) -> float:
        try:
            score = float(node.value)
        except ValueError:
            score = -1.0
        if not 0.0 <= score <= 1.0:
            self.refuse(node, f"{name} must be 0 to 1, got {node.value!r}")
        return score

    def _choice(self, name: str, node: ScalarNode, known: Sequence[str]) -> str:
        if node.value not in known:
            self.refuse(node, _unknown(f"value of {name}", node.value, known))
        return str(node.value)

    def refuse(self, node: Node, problem: str) -> NoReturn:
        raise PolicyError(f"{self._file}:{node.start_mark.line + 1}: {problem}")


def _unknown(what: str, got: str, known: Sequence[str]) -> str:
    near = get_close_matches(got, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"unknown {what}: {got!r}; {hint}"
