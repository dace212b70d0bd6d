"""Finds prompt injections and jailbreaks by rules of high precision. Pure; one of `catalogue.py`'s detectors.

The rules stand in `injection_rules.yaml`, versioned; they see the normalised text and match in linear time.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from servicekit.domain.verdict import Finding, Surface
from services.guardrail.detectors.detector import Subject
from services.guardrail.linear import LinearPattern, LinearSet
from services.guardrail.normalizing import NORMALIZING_VERSION

_TERM = re.compile(r"\{([a-z]+)\}")
_HIDDEN_RUN = 8
"""Flags of regions are up to seven tag characters; a longer run is a message."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing to look for: any of its expressions, and the examples that prove it."""

    id: str
    score: float
    message: str
    patterns: tuple[str, ...]
    hits: tuple[str, ...]
    misses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules and their version."""

    version: str
    rules: tuple[Rule, ...]


def load_rules() -> RuleSet:
    """The packaged rules, their terms filled in."""
    source = files("services.guardrail").joinpath("injection_rules.yaml").read_text("utf-8")
    document: Mapping[str, Any] = yaml.safe_load(source)
    terms: Mapping[str, str] = document["terms"]

    def filled(pattern: str) -> str:
        return _TERM.sub(lambda term: terms[term[1]], pattern)

    rules = tuple(
        Rule(
            id=entry["id"],
            score=float(entry["score"]),
            message=entry["message"],
            patterns=tuple(filled(pattern) for pattern in entry["patterns"]),
            hits=tuple(entry["hits"]),
            misses=tuple(entry["misses"]),
        )
        for entry in document["rules"]
    )
    return RuleSet(document["version"], rules)


class InjectionDetector:
    """Orders to the model where only a question or a document belongs."""

    id = "injection"
    surfaces = frozenset({Surface.INPUT, Surface.RETRIEVED})
    redacts = False
    options_model = None

    def __init__(self, rule_set: RuleSet | None = None) -> None:
        rule_set = rule_set or load_rules()
        self.version = f"{rule_set.version}+{NORMALIZING_VERSION}"
        flat = [(rule, pattern) for rule in rule_set.rules for pattern in rule.patterns]
        self._rules = tuple(rule for rule, _ in flat)
        self._patterns = tuple(LinearPattern(pattern, ignore_case=True) for _, pattern in flat)
        self._any = LinearSet([pattern for _, pattern in flat], ignore_case=True)

    def find(self, subject: Subject) -> Iterator[Finding]:
        """The first place of each rule that matches, with the rule's score."""
        told: set[str] = set()
        for position in self._any.matching(subject.text):
            rule = self._rules[position]
            span = self._patterns[position].first(subject.text)
            if span and rule.id not in told:
                told.add(rule.id)
                yield Finding(rule.id, rule.score, span, message=rule.message)
        yield from _hidden_text(subject)


def _hidden_text(subject: Subject) -> Iterator[Finding]:
    for run in subject.normalized.hidden_runs(at_least=_HIDDEN_RUN)[:1]:
        place = subject.normalized.from_original(run)
        yield Finding("injection.hidden_text", 0.95, place, message="Text in characters that no reader sees.")
