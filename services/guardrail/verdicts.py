"""Turns what a detector found, or that it could not be asked, into the verdicts that a policy makes of it.

Pure; used by `examining.py` and `judging.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from servicekit.domain.verdict import Action, Finding, Span, Surface, Verdict
from services.guardrail.detectors.detector import Detector
from services.guardrail.policy import DetectorPolicy, OnFailure, Policy

MAX_VERDICTS = 200
"""Verdicts listed for one text, the strongest first kept; redaction and action count all of them."""


class Fault(StrEnum):
    """Why a detector gave no answer; the last part of its verdict's rule."""

    FAILED = "failed"
    TIMEOUT = "timeout"
    MISSING = "missing"


_FAULT_MESSAGES = {
    Fault.FAILED: "The detector failed",
    Fault.TIMEOUT: "The detector did not answer in time",
    Fault.MISSING: "The detector, or what it needs, is not there",
}


@dataclass(frozen=True, slots=True)
class Located:
    """A finding, and its place in the text as it was given."""

    finding: Finding
    place: Span | None


@dataclass(frozen=True, slots=True)
class Asker:
    """A policy that asks a detector about a surface. What a shadow finds is told and not acted upon.

    A candidate is a policy that is not in force; it is always a shadow.
    """

    policy: Policy
    rule: DetectorPolicy
    action: Action
    shadow: bool
    candidate: bool = False


def found_verdicts(found: Sequence[Located], *, surface: Surface, detector: Detector, asker: Asker) -> list[Verdict]:
    """One verdict for each finding that the policy wants told."""
    return [
        Verdict(
            surface=surface,
            detector=detector.id,
            detector_version=detector.version,
            action=asker.action,
            score=one.finding.score,
            rule=one.finding.rule,
            span=one.place,
            message=one.finding.message,
            policy_version=asker.policy.version,
            shadow=asker.shadow,
        )
        for one in found
        if one.finding.score >= asker.rule.min_score
    ]


def fault_verdict(fault: Fault, *, surface: Surface, detector: Detector, asker: Asker) -> Verdict:
    """Flag or block, as the policy says."""
    on_failure = asker.rule.on_failure
    return Verdict(
        surface=surface,
        detector=detector.id,
        detector_version=detector.version,
        action=Action.BLOCK if on_failure is OnFailure.CLOSED else Action.FLAG,
        score=0.0,
        rule=f"{detector.id}.{fault}",
        span=None,
        message=f"{_FAULT_MESSAGES[fault]}; the policy fails {on_failure.value}.",
        policy_version=asker.policy.version,
        shadow=asker.shadow,
    )


def strongest_first_kept(verdicts: Sequence[Verdict], *, at_most: int) -> tuple[Verdict, ...]:
    """The verdicts in their order; where there are too many, shadows, the weakest and the last are left out."""
    if len(verdicts) <= at_most:
        return tuple(verdicts)
    ranked = sorted(
        range(len(verdicts)), key=lambda place: (verdicts[place].shadow, -verdicts[place].action.strength, place)
    )
    return tuple(verdicts[place] for place in sorted(ranked[:at_most]))
