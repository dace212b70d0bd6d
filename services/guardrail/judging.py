"""Lays out what a check asks of which detector, and gives what they found the actions that the policy states.

Pure; called by `checking.py`, between which and the detectors stand `workers.py` and `examining.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from servicekit.domain.verdict import Action, Surface, Verdict, combined_action
from services.guardrail.detectors.detector import Detector, Embed, embeds
from services.guardrail.examining import READING_TIMEOUT_S, Attempt, Examination, Step
from services.guardrail.policy import PoliciesInForce, Policy
from services.guardrail.redacting import Replaceable
from services.guardrail.stuck import StuckThreads
from services.guardrail.verdicts import (
    MAX_VERDICTS,
    Asker,
    Fault,
    fault_verdict,
    found_verdicts,
    strongest_first_kept,
)

Only = Callable[[Detector], bool]
"""Which of the detectors of the policy are asked."""

__all__ = ["MAX_VERDICTS", "Assessment", "Judge", "strongest_first_kept"]


@dataclass(frozen=True, slots=True)
class Assessment:
    """What was found in one text. `complete` is false where a detector failed: such a result is not kept."""

    action: Action
    verdicts: tuple[Verdict, ...]
    replaceable: tuple[Replaceable, ...]
    groundedness: float | None = None
    complete: bool = True


def every(detector: Detector) -> bool:
    """All detectors are asked that the policy asks."""
    del detector
    return True


class Judge:
    """The detectors and how they are asked. `embed` is None where no embedder is configured."""

    def __init__(self, detectors: Sequence[Detector], *, embed: Embed | None = None) -> None:
        self._detectors = tuple(detectors)
        self._cheap_first = sorted(enumerate(self._detectors), key=lambda placed: embeds(placed[1]))
        self._embed = embed
        self._stuck = StuckThreads()
        self.rules_version = "|".join(f"{detector.id}:{detector.version}" for detector in detectors)

    def asked(self, surface: Surface, in_force: PoliciesInForce) -> tuple[Detector, ...]:
        """The detectors that these policies ask about this surface."""
        return tuple(detector for detector in self._detectors if any(_askers(surface, detector, in_force)))

    def examination(
        self,
        surface: Surface,
        texts: Sequence[str],
        *,
        in_force: PoliciesInForce,
        chunk_texts: Sequence[str] = (),
        only: Only = every,
        whole: bool = True,
    ) -> Examination:
        """The steps that judge these texts, by those detectors `only`, none of them taken yet.

        `whole` is false for pieces of an answer that has others.
        """
        wanted = [
            (detector, position, step_askers)
            for position, detector in self._cheap_first
            if only(detector) and (step_askers := tuple(_askers(surface, detector, in_force)))
        ]
        cheap = [one for one in wanted if not embeds(one[0])]
        costly = wanted[len(cheap) :]
        steps: list[Step] = []
        for place in range(len(texts)):
            steps.append(Step(place, READING_TIMEOUT_S))
            steps += (step for one in cheap for step in _steps(place, *one))
        steps += (step for place in range(len(texts)) for one in costly for step in _steps(place, *one))
        return Examination(
            surface,
            tuple(texts),
            steps,
            self._stuck,
            chunk_texts=tuple(chunk_texts),
            embed=self._embed,
            whole=whole,
        )

    def assess(self, surface: Surface, text: str, *, policy: Policy, chunk_texts: Sequence[str] = ()) -> Assessment:
        """Judge one text here and now, in this thread: nobody watches for detectors that hang."""
        examination = self.examination(surface, (text,), in_force=PoliciesInForce(policy), chunk_texts=chunk_texts)
        examination.run(Attempt())
        return assessments(examination)[0]


def assessments(examination: Examination) -> list[Assessment]:
    """What was found, text by text. Spans are places in the texts as given; steps not reached count as timeouts."""
    by_place: list[list[Step]] = [[] for _ in examination.texts]
    for step in sorted(examination.steps, key=lambda step: step.position):
        if step.detector is not None:
            by_place[step.place].append(step)
    return [_assessment(examination, place, steps) for place, steps in enumerate(by_place)]


def _askers(surface: Surface, detector: Detector, in_force: PoliciesInForce) -> Iterator[Asker]:
    for policy in (in_force.policy, in_force.candidate):
        rule = policy.detectors.get(detector.id) if policy else None
        action = rule.actions.get(surface) if rule else None
        if policy and rule and action is not None:
            candidate = policy is in_force.candidate
            yield Asker(policy, rule, action, shadow=candidate or rule.shadow or policy.shadow, candidate=candidate)


def _steps(place: int, detector: Detector, position: int, askers: tuple[Asker, ...]) -> Iterator[Step]:
    """One step for all who ask the same; one each where their options differ."""
    default = detector.options_model() if detector.options_model else None
    options = [asker.rule.options or default for asker in askers]
    groups = [askers] if all(one == options[0] for one in options) else [(asker,) for asker in askers]
    for group in groups:
        rule = group[0].rule
        yield Step(place, rule.timeout_ms / 1_000, detector, group, rule.options or default, position)


def _assessment(examination: Examination, place: int, steps: Sequence[Step]) -> Assessment:
    told: list[Verdict] = []
    compared: list[Verdict] = []
    replaceable: list[Replaceable] = []
    complete = True
    for step in steps:
        answer = examination.answer(step)
        complete = complete and not isinstance(answer, Fault)
        for asker in step.askers:
            verdicts = _verdicts(examination, step, asker)
            (compared if asker.candidate else told).extend(verdicts)
            if asker.action is Action.REDACT and not asker.shadow and not isinstance(answer, Fault):
                replaceable += (
                    Replaceable(one.place, one.finding.kind)
                    for one in answer
                    if one.place and one.finding.kind and one.finding.score >= asker.rule.min_score
                )
    return Assessment(
        action=combined_action(told),
        verdicts=strongest_first_kept([*told, *compared], at_most=MAX_VERDICTS),
        replaceable=tuple(replaceable),
        groundedness=examination.groundedness.get(place),
        complete=complete,
    )


def _verdicts(examination: Examination, step: Step, asker: Asker) -> list[Verdict]:
    answer = examination.answer(step)
    if step.detector is None:
        return []
    if isinstance(answer, Fault):
        return [fault_verdict(answer, surface=examination.surface, detector=step.detector, asker=asker)]
    return found_verdicts(answer, surface=examination.surface, detector=step.detector, asker=asker)
