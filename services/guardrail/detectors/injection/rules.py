"""Finds prompt injections and jailbreaks by rules of high precision. Pure; the first stage of `detector.py`.

The rules stand in `injection_rules.yaml`, versioned; they see every view of the text and match in linear time.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from servicekit.domain.verdict import Finding
from services.guardrail.detectors.detector import Subject
from services.guardrail.linear import LinearPattern, LinearSet

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


class RuleMatcher:
    """All rules compiled, asked in one pass which of them match at all."""

    def __init__(self, rule_set: RuleSet) -> None:
        flat = [(rule, pattern) for rule in rule_set.rules for pattern in rule.patterns]
        self._rules = tuple(rule for rule, _ in flat)
        self._patterns = tuple(LinearPattern(pattern, ignore_case=True) for _, pattern in flat)
        self._any = LinearSet([pattern for _, pattern in flat], ignore_case=True)

    def find(self, subject: Subject) -> Iterator[Finding]:
        """The first place of each rule that matches any view of the text, with the rule's score."""
        told: set[str] = set()
        for view in subject.views:
            for position in self._any.matching(view.text):
                rule = self._rules[position]
                span = self._patterns[position].first(view.text) if rule.id not in told else None
                if span:
                    told.add(rule.id)
                    yield Finding(rule.id, rule.score, subject.in_text(view, span), message=rule.message)
        yield from _hidden_text(subject)


def _hidden_text(subject: Subject) -> Iterator[Finding]:
    for run in subject.normalized.hidden_runs(at_least=_HIDDEN_RUN)[:1]:
        place = subject.normalized.from_original(run)
        yield Finding("injection.hidden_text", 0.95, place, message="Text in characters that no reader sees.")
