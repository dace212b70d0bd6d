"""Reads policy files: every mistake is told with its file and line, and with what could have been meant.

Pure but for the packaged default; used by `policy_folder.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files

from yaml.nodes import Node, ScalarNode

from servicekit.domain.verdict import Action, Surface
from services.guardrail.detectors.detector import Detector
from services.guardrail.policy import DetectorPolicy, OnFailure, Policy
from services.guardrail.policy_nodes import MAX_FILE_CHARS, PolicyError, PolicyNodes
from services.guardrail.policy_options import read_options

__all__ = ["MAX_FILE_CHARS", "PolicyError", "PolicyFile", "default_policy", "parse_policy"]

MAX_ROUTE_CHARS = 64
_OFF = "off"
_SURFACES = tuple(surface.value for surface in Surface)
_SETTINGS = (*_SURFACES, "min_score", "on_failure", "timeout_ms", "shadow", "options")
_ACTIONS = (_OFF, *(action.value for action in Action))
_LONGEST_TIMEOUT_MS = 60_000


def default_policy(detectors: Sequence[Detector]) -> Policy:
    """The packaged default policy."""
    source = files("services.guardrail").joinpath("default_policy.yaml").read_text("utf-8")
    nothing = Policy("default", {detector.id: _nothing(detector) for detector in detectors})
    return parse_policy(source, name="default", file="default_policy.yaml", under=nothing, detectors=detectors)


def parse_policy(source: str, *, name: str, file: str, under: Policy, detectors: Sequence[Detector]) -> Policy:
    """`under`, changed by what the file states for every route; what it states for one route must hold too.

    Raises:
        PolicyError: not YAML, or an unknown detector, surface, action or setting, or one that makes no sense.
    """
    parsed = PolicyFile(source, file=file, detectors=detectors)
    policy = parsed.over(under, name=name)
    for route in parsed.routes:
        parsed.over_on(route, policy, name=name)
    return policy


class PolicyFile:
    """One file: what it changes for every route, and besides for some."""

    def __init__(self, source: str, *, file: str, detectors: Sequence[Detector]) -> None:
        self._nodes = PolicyNodes(source, file=file)
        self._detectors = {detector.id: detector for detector in detectors}
        self._routes = self._read_routes()

    @property
    def routes(self) -> tuple[str, ...]:
        """The routes of which the file says something."""
        return tuple(self._routes)

    def over(self, under: Policy, *, name: str) -> Policy:
        """`under`, changed by what the file states for every route."""
        known = ("shadow", "detectors", "routes")
        return self._changed(self._nodes.root, "the policy", known, replace(under, name=name))

    def over_on(self, route: str, under: Policy, *, name: str) -> Policy:
        """`under`, changed by what the file states for this route alone."""
        node = self._routes.get(route)
        return self._changed(node, f"routes.{route}", ("shadow", "detectors"), replace(under, name=name))

    def _read_routes(self) -> Mapping[str, Node]:
        if self._nodes.root is None:
            return {}
        routes = dict[str, Node]()
        for key, value in self._nodes.pairs(self._nodes.root, "the policy"):
            for route, stated in self._nodes.pairs(value, "routes") if key.value == "routes" else ():
                if not 1 <= len(route.value) <= MAX_ROUTE_CHARS:
                    self._nodes.refuse(route, f"a route's name has 1 to {MAX_ROUTE_CHARS} characters")
                routes[route.value] = stated
        return routes

    def _changed(self, node: Node | None, what: str, known: Sequence[str], policy: Policy) -> Policy:
        for key, value in self._nodes.items(node, what, known) if node else ():
            if key.value == "shadow":
                policy = replace(policy, shadow=self._nodes.flag("shadow", value))
            elif key.value == "detectors":
                policy = replace(policy, detectors=self._read_detectors(value, policy.detectors))
        return policy

    def _read_detectors(self, node: Node, under: Mapping[str, DetectorPolicy]) -> Mapping[str, DetectorPolicy]:
        merged = dict(under)
        for key, settings in self._nodes.items(node, "detectors", tuple(self._detectors)):
            rule = merged.get(key.value) or _nothing(self._detectors[key.value])
            for setting, value in self._nodes.items(settings, key.value, _SETTINGS):
                rule = self._read_setting(self._detectors[key.value], setting, value, rule)
            merged[key.value] = rule
        return merged

    def _read_setting(self, detector: Detector, key: ScalarNode, node: Node, rule: DetectorPolicy) -> DetectorPolicy:
        name = f"{detector.id}.{key.value}"
        match key.value:
            case "min_score":
                return replace(rule, min_score=self._nodes.number(name, node, least=0, most=1))
            case "on_failure":
                return replace(rule, on_failure=OnFailure(self._nodes.choice(name, node, tuple(OnFailure))))
            case "timeout_ms":
                timeout_ms = self._nodes.number(name, node, least=1, most=_LONGEST_TIMEOUT_MS)
                return replace(rule, timeout_ms=round(timeout_ms))
            case "shadow":
                return replace(rule, shadow=self._nodes.flag(name, node))
            case "options":
                if rule.options is None:
                    self._nodes.refuse(key, f"{detector.id} has no options")
                return replace(rule, options=read_options(self._nodes, node, name=name, under=rule.options))
            case _:
                return replace(rule, actions=self._read_actions(detector, Surface(key.value), node, rule))

    def _read_actions(
        self, detector: Detector, surface: Surface, node: Node, under: DetectorPolicy
    ) -> Mapping[Surface, Action]:
        choice = self._nodes.choice(f"{detector.id}.{surface}", node, _ACTIONS)
        kept = {known: action for known, action in under.actions.items() if known is not surface}
        if choice == _OFF:
            return kept
        if surface not in detector.surfaces:
            where = ", ".join(sorted(detector.surfaces))
            self._nodes.refuse(node, f"{detector.id} judges {where} only: {surface} must be off, got {choice!r}")
        if choice == Action.REDACT and not detector.redacts:
            self._nodes.refuse(node, f"{detector.id} cannot redact: choose off, allow, flag or block")
        return {**kept, surface: Action(choice)}


def _nothing(detector: Detector) -> DetectorPolicy:
    """Off everywhere, its options as the detector has them."""
    options = detector.options_model() if detector.options_model else None
    return DetectorPolicy(actions={}, min_score=0.0, on_failure=OnFailure.OPEN, shadow=False, options=options)
