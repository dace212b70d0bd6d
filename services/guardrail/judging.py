"""Runs the detectors over one text and gives each finding the action that the policy states.

Pure; called by `checking.py`, in a worker thread where the text is long.
"""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from servicekit.domain.verdict import Action, Finding, Surface, Verdict, combined_action
from services.guardrail.detectors.detector import Detector, Subject
from services.guardrail.metrics import DETECTOR_FAILURES
from services.guardrail.normalizing import normalize
from services.guardrail.policy import DetectorPolicy, OnFailure, Policy
from services.guardrail.redacting import Replaceable

log = structlog.get_logger()

_NOT_ASKED = DetectorPolicy(actions={}, min_score=1.0, on_failure=OnFailure.OPEN, shadow=True)

MAX_VERDICTS = 200
"""Verdicts listed for one text, the strongest first kept; redaction and action count all of them."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What was found in one text. `complete` is false where a detector failed: such a result is not kept."""

    action: Action
    verdicts: tuple[Verdict, ...]
    replaceable: tuple[Replaceable, ...]
    groundedness: float | None = None
    complete: bool = True


class Judge:
    """The detectors and how they are asked."""

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self._detectors = tuple(detectors)
        self.rules_version = "|".join(f"{detector.id}:{detector.version}" for detector in detectors)

    def assess(self, surface: Surface, text: str, *, policy: Policy, chunk_texts: Sequence[str] = ()) -> Assessment:
        """Judge one text. Spans of the result are places in `text`."""
        subject = Subject(surface, normalize(text), tuple(chunk_texts))
        verdicts: list[Verdict] = []
        replaceable: list[Replaceable] = []
        complete = True
        for detector in self._detectors:
            rule = policy.detectors.get(detector.id, _NOT_ASKED)
            action = rule.actions.get(surface)
            if action is None:
                continue
            try:
                findings = [finding for finding in detector.find(subject) if finding.score >= rule.min_score]
            except Exception as exc:  # noqa: BLE001  # whatever a detector does, the policy decides what it means
                verdicts.append(_failure_verdict(exc, subject, detector, policy))
                complete = False
                continue
            verdicts += [_verdict(finding, subject, detector, policy) for finding in findings]
            if action is Action.REDACT and not rule.shadow:
                replaceable += _replaceable(findings, subject)
        return Assessment(
            action=combined_action(verdicts),
            verdicts=strongest_first_kept(verdicts, at_most=MAX_VERDICTS),
            replaceable=tuple(replaceable),
            groundedness=_groundedness(subject, policy),
            complete=complete,
        )


def strongest_first_kept(verdicts: Sequence[Verdict], *, at_most: int) -> tuple[Verdict, ...]:
    """The verdicts in their order; where there are too many, the weakest and last are left out."""
    if len(verdicts) <= at_most:
        return tuple(verdicts)
    ranked = sorted(range(len(verdicts)), key=lambda place: (-verdicts[place].action.strength, place))
    return tuple(verdicts[place] for place in sorted(ranked[:at_most]))


def _verdict(finding: Finding, subject: Subject, detector: Detector, policy: Policy) -> Verdict:
    rule = policy.detectors[detector.id]
    return Verdict(
        surface=subject.surface,
        detector=detector.id,
        detector_version=detector.version,
        action=rule.actions[subject.surface],
        score=finding.score,
        rule=finding.rule,
        span=subject.normalized.to_original(finding.span) if finding.span else None,
        message=finding.message,
        policy_version=policy.version,
        shadow=rule.shadow,
    )


def _replaceable(findings: Sequence[Finding], subject: Subject) -> list[Replaceable]:
    return [
        Replaceable(subject.normalized.to_original(finding.span), finding.kind)
        for finding in findings
        if finding.span and finding.kind
    ]


def _failure_verdict(error: Exception, subject: Subject, detector: Detector, policy: Policy) -> Verdict:
    """Flag or block, as the policy says. Logs neither the error's text nor values: they may hold what is judged."""
    rule = policy.detectors[detector.id]
    frames = traceback.extract_tb(error.__traceback__)
    log.error(
        "detector.failed",
        detector=detector.id,
        surface=subject.surface.value,
        on_failure=rule.on_failure.value,
        error=type(error).__name__,
        place=f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "",
    )
    DETECTOR_FAILURES.labels(detector.id).inc()
    return Verdict(
        surface=subject.surface,
        detector=detector.id,
        detector_version=detector.version,
        action=Action.BLOCK if rule.on_failure is OnFailure.CLOSED else Action.FLAG,
        score=0.0,
        rule=f"{detector.id}.failed",
        span=None,
        message=f"The detector failed; the policy fails {rule.on_failure.value}.",
        policy_version=policy.version,
        shadow=rule.shadow,
    )


def _groundedness(subject: Subject, policy: Policy) -> float | None:
    """The answer's support where the policy asks for it; None where the detector itself failed."""
    rule = policy.detectors.get("groundedness")
    if rule is None or subject.surface not in rule.actions:
        return None
    try:
        return subject.grounding.score if subject.grounding else None
    except Exception:  # noqa: BLE001  # told by the detector's own verdict
        return None
