"""Tests of judging: the policy decides what a finding and a failure mean."""

import pytest
from structlog.testing import capture_logs

from servicekit.domain.verdict import Action, Finding, Span, Surface, strongest
from services.guardrail.detectors.catalogue import all_detectors
from services.guardrail.judging import MAX_VERDICTS, Assessment, Judge
from services.guardrail.policy import DetectorPolicy, OnFailure, Policy
from services.guardrail.policy_file import default_policy
from tests.unit.guardrail.guardrail_fakes import ToldDetector

FOUND = Finding("told.rule", 0.7, Span(0, 3), "THING", "A thing.")


def policy(
    action: Action | None = Action.REDACT,
    *,
    min_score: float = 0.5,
    failing: OnFailure = OnFailure.OPEN,
    shadow: bool = False,
) -> Policy:
    """A policy with one detector on the input."""
    actions = {Surface.INPUT: action} if action else {}
    return Policy("test", {"told": DetectorPolicy(actions, min_score, failing, shadow)})


def assess(detector: ToldDetector, under: Policy, surface: Surface = Surface.INPUT) -> Assessment:
    """Judge one short text."""
    return Judge((detector,)).assess(surface, "abcdef", policy=under)


def test_actions_are_ordered() -> None:
    """Block beats redact beats flag beats allow, and nothing at all allows."""
    assert strongest(()) is Action.ALLOW
    assert strongest((Action.FLAG, Action.BLOCK, Action.REDACT)) is Action.BLOCK
    assert [action.strength for action in Action] == [0, 1, 2, 3]


def test_a_finding_gets_the_policys_action() -> None:
    """Verdicts carry detector, version, rule, score, span and the version of the policy that decided."""
    under = policy(Action.FLAG)
    (verdict,) = assess(ToldDetector("told", [FOUND]), under).verdicts
    assert (verdict.detector, verdict.detector_version, verdict.rule) == ("told", "1", "told.rule")
    assert (verdict.action, verdict.score, verdict.span) == (Action.FLAG, 0.7, Span(0, 3))
    assert verdict.policy_version == under.version


def test_what_is_off_is_not_asked() -> None:
    """A surface without an action costs nothing."""
    detector = ToldDetector("told", [FOUND])
    assert assess(detector, policy(None)).verdicts == ()
    assert assess(detector, policy(), Surface.OUTPUT).verdicts == ()
    assert detector.asked == 0


def test_unsure_findings_are_not_told() -> None:
    """A score below the policy's least score is no verdict."""
    assert assess(ToldDetector("told", [FOUND]), policy(min_score=0.8)).action is Action.ALLOW


def test_shadow_verdicts_are_told_and_not_acted_upon() -> None:
    """In shadow a redaction is listed as such, and nothing is replaced."""
    assessment = assess(ToldDetector("told", [FOUND]), policy(shadow=True))
    assert assessment.action is Action.ALLOW
    assert assessment.replaceable == ()
    assert assessment.verdicts[0].shadow


@pytest.mark.parametrize(("failing", "action"), [(OnFailure.OPEN, Action.FLAG), (OnFailure.CLOSED, Action.BLOCK)])
def test_a_failing_detector_means_what_the_policy_says(failing: OnFailure, action: Action) -> None:
    """Open: a flag; closed: a block. The verdict says so, and nothing of it is kept for later."""
    assessment = assess(ToldDetector("told", ValueError("boom")), policy(failing=failing))
    assert assessment.action is action
    assert assessment.verdicts[0].rule == "told.failed"
    assert not assessment.complete


def test_a_failure_does_not_stop_the_others() -> None:
    """The detectors behind a failing one are asked all the same."""
    failing, working = ToldDetector("told", ValueError("boom")), ToldDetector("other", [FOUND])
    under = Policy("test", {**policy().detectors, "other": policy(Action.BLOCK).detectors["told"]})
    assessment = Judge((failing, working)).assess(Surface.INPUT, "abcdef", policy=under)
    assert [verdict.rule for verdict in assessment.verdicts] == ["told.failed", "told.rule"]


def test_a_failures_log_holds_no_text() -> None:
    """An error's message may quote what is judged: only its type and place are logged."""
    with capture_logs() as logs:
        assess(ToldDetector("told", ValueError("my password is hunter2")), policy())
    assert "hunter2" not in repr(logs)
    assert logs[0]["error"] == "ValueError"


def test_too_many_verdicts_keep_the_strongest_and_redact_all() -> None:
    """The list is bounded; what is done is not."""
    findings = [Finding("told.rule", 0.9, Span(0, 1), "THING")] * (MAX_VERDICTS + 50)
    blocking = ToldDetector("block", [Finding("block.rule", 1.0)])
    under = Policy("test", {**policy().detectors, "block": policy(Action.BLOCK).detectors["told"]})
    judge = Judge((ToldDetector("told", findings), blocking))
    assessment = judge.assess(Surface.INPUT, "abcdef", policy=under)
    assert len(assessment.verdicts) == MAX_VERDICTS
    assert assessment.verdicts[-1].rule == "block.rule"
    assert len(assessment.replaceable) == MAX_VERDICTS + 50


def test_groundedness_is_told_only_with_chunks_and_where_the_policy_asks() -> None:
    """Without chunks there is no score; with them a copied sentence scores 1."""
    detectors = all_detectors()
    judge, under = Judge(detectors), default_policy(detectors)
    text = "Bees dance to tell the way."
    assert judge.assess(Surface.OUTPUT, text, policy=under).groundedness is None
    assert judge.assess(Surface.INPUT, text, policy=under, chunk_texts=[text]).groundedness is None
    assert judge.assess(Surface.OUTPUT, text, policy=under, chunk_texts=[text]).groundedness == 1.0


def test_versions_of_all_rules_are_in_the_judges_version() -> None:
    """What is kept under a version is never used after a detector changed."""
    one, other = ToldDetector("told"), ToldDetector("told")
    other.version = "2"
    assert Judge((one,)).rules_version != Judge((other,)).rules_version
