"""Tests of checks whose detectors crash, hang or are missing: the policy decides, the verdict says so, others go on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import pytest

from servicekit.domain.verdict import Action, Finding, Span, Surface
from servicekit.errors import BackendTimeout, BackendUnavailable, NotReady
from services.guardrail.detectors.detector import Detector, Subject
from services.guardrail.detectors.missing import built_or_missing
from services.guardrail.judging import Assessment, Judge, assessments
from services.guardrail.normalizing import NormalizedText, normalize
from services.guardrail.policy import DetectorPolicy, OnFailure, PoliciesInForce, Policy
from services.guardrail.stuck import MOST_STUCK
from services.guardrail.workers import Workers
from tests.unit.guardrail.guardrail_fakes import HangingDetector, ToldDetector

FOUND = Finding("other.rule", 0.9, Span(0, 3), "THING", "A thing.")
LONG_MS = 60_000


def rule(
    action: Action = Action.FLAG,
    *,
    failing: OnFailure = OnFailure.OPEN,
    shadow: bool = False,
    timeout_ms: int = LONG_MS,
) -> DetectorPolicy:
    """A detector's part, the same on every surface."""
    return DetectorPolicy(dict.fromkeys(Surface, action), 0.5, failing, shadow, timeout_ms)


def in_force(**rules: DetectorPolicy) -> PoliciesInForce:
    """A policy and no candidate."""
    return PoliciesInForce(Policy("test", rules))


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    """One thread: whoever takes it for good stops everything."""
    async with Workers(threads=1, queue=8) as workers:
        yield workers


async def assess(
    judge: Judge,
    workers: Workers,
    policies: PoliciesInForce,
    *,
    surface: Surface = Surface.INPUT,
    texts: Sequence[str] = ("abcdef",),
    deadline_s: float | None = None,
) -> list[Assessment]:
    """Judge as the service does."""
    examination = judge.examination(surface, texts, in_force=policies)
    await workers.examine(examination, deadline_s=deadline_s)
    return assessments(examination)


class Unbuildable(ToldDetector):
    """A detector whose model is not there."""

    id = "told"

    def __init__(self) -> None:
        raise FileNotFoundError("weights.safetensors")


FAULTS: dict[str, Callable[[], Detector]] = {
    "failed": lambda: ToldDetector("told", ValueError("boom")),
    "timeout": lambda: HangingDetector("told"),
    "missing": lambda: built_or_missing(Unbuildable),
}


@pytest.mark.parametrize("surface", list(Surface))
@pytest.mark.parametrize("failing", list(OnFailure))
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_faulty_detector_is_decided_by_the_policy(
    workers: Workers, fault: str, failing: OnFailure, surface: Surface
) -> None:
    """Crash, hang or missing: open flags, closed blocks, on each surface; the detector behind it is asked."""
    faulty = FAULTS[fault]()
    judge = Judge((faulty, ToldDetector("other", [FOUND])))
    timeout_ms = 20 if fault == "timeout" else LONG_MS
    policies = in_force(told=rule(failing=failing, timeout_ms=timeout_ms), other=rule())
    (assessment,) = await assess(judge, workers, policies, surface=surface)
    assert [verdict.rule for verdict in assessment.verdicts] == [f"told.{fault}", "other.rule"]
    assert assessment.action is (Action.BLOCK if failing is OnFailure.CLOSED else Action.FLAG)
    assert not assessment.complete
    if isinstance(faulty, HangingDetector):
        faulty.release.set()


async def test_a_detector_that_hangs_is_left_alone_until_it_comes_back(workers: Workers) -> None:
    """It costs so many threads and no more; the service goes on; when one returns it is asked again."""
    hanging = HangingDetector("told")
    judge = Judge((hanging, ToldDetector("other", [FOUND])))
    policies = in_force(told=rule(timeout_ms=10), other=rule())
    for _ in range(MOST_STUCK + 3):
        (assessment,) = await assess(judge, workers, policies)
        assert [verdict.rule for verdict in assessment.verdicts] == ["told.timeout", "other.rule"]
    assert hanging.asked == MOST_STUCK
    hanging.release.set()
    async with asyncio.timeout(10):
        while assessment.verdicts[0].rule != "other.rule":
            (assessment,) = await assess(judge, workers, policies)
    assert hanging.asked > MOST_STUCK


async def test_what_embeds_is_away_is_missing(workers: Workers) -> None:
    """A backend that cannot be reached is not the detector's own failure, one that is too slow is a timeout."""
    errors = ((BackendUnavailable("x"), "missing"), (BackendTimeout("x"), "timeout"), (NotReady("x"), "missing"))
    for error, fault in errors:
        (assessment,) = await assess(Judge((ToldDetector("told", error),)), workers, in_force(told=rule()))
        assert [verdict.rule for verdict in assessment.verdicts] == [f"told.{fault}"]


async def test_what_is_not_reached_in_the_callers_time_is_decided_by_the_policy(workers: Workers) -> None:
    """Some time is left to tell it; what was found before counts."""
    hanging = HangingDetector("told")
    judge = Judge((ToldDetector("other", [FOUND]), hanging, ToldDetector("last")))
    policies = in_force(other=rule(), told=rule(), last=rule(failing=OnFailure.CLOSED))
    (assessment,) = await assess(judge, workers, policies, deadline_s=1.0)
    assert [verdict.rule for verdict in assessment.verdicts] == ["other.rule", "told.timeout", "last.timeout"]
    assert assessment.action is Action.BLOCK
    hanging.release.set()


async def test_no_time_at_all_is_an_expired_deadline(workers: Workers) -> None:
    """Nothing can be told any more."""
    with pytest.raises(BackendTimeout, match="not judged within the deadline"):
        await assess(Judge((ToldDetector("told"),)), workers, in_force(told=rule()), deadline_s=0.0)


async def test_a_thread_left_behind_at_the_deadline_is_given_up_when_overdue(workers: Workers) -> None:
    """The caller has gone; the one thread is replaced all the same once the detector's own time is over."""
    hanging = HangingDetector("told")
    judge = Judge((hanging,))
    await assess(judge, workers, in_force(told=rule(timeout_ms=600)), deadline_s=0.4)
    assert await workers.run(lambda: "done", chars=1, deadline_s=10.0) == "done"
    hanging.release.set()


async def test_a_cancelled_check_begins_nothing_more(workers: Workers) -> None:
    """A caller that goes away leaves the steps behind the one at work undone."""
    hanging, last = HangingDetector("told"), ToldDetector("last")
    task = asyncio.create_task(assess(Judge((hanging, last)), workers, in_force(told=rule(), last=rule())))
    await asyncio.to_thread(hanging.begun.acquire)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    hanging.release.set()
    assert await workers.run(lambda: "free", chars=1, deadline_s=10.0) == "free"
    assert last.asked == 0


async def test_a_text_that_cannot_be_read_fails_every_detector(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other text of the same check is judged."""

    def failing(text: str) -> NormalizedText:
        if text == "bad":
            raise ValueError(text)
        return normalize(text)

    monkeypatch.setattr("services.guardrail.examining.normalize", failing)
    told = ToldDetector("told", [FOUND])
    bad, good = await assess(
        Judge((told, ToldDetector("other"))), workers, in_force(told=rule(), other=rule()), texts=("bad", "good")
    )
    assert [verdict.rule for verdict in bad.verdicts] == ["told.failed", "other.failed"]
    assert [verdict.rule for verdict in good.verdicts] == ["other.rule"]


class EmbeddingDetector(ToldDetector):
    """Embeds whatever it is asked."""

    embeds = True

    def find(self, subject: Subject) -> Iterable[Finding]:
        """What it was told, after an embedding."""
        assert subject.embed is not None
        subject.embed([subject.text])
        return super().find(subject)


def embed(texts: Sequence[str]) -> Sequence[Sequence[float]]:
    """One vector for all."""
    return [(1.0,) for _ in texts]


class BlockingWord(ToldDetector):
    """Finds the word `bad`."""

    def find(self, subject: Subject) -> Iterable[Finding]:
        """One finding, or none."""
        return [FOUND] if "bad" in subject.text else ()


@pytest.mark.parametrize("shadow", [False, True])
async def test_a_blocked_text_is_embedded_for_shadows_only(workers: Workers, shadow: bool) -> None:
    """The cheap detectors go over all texts first; their blocks spare embeddings, but for a comparison's sake."""
    costly: EmbeddingDetector = EmbeddingDetector("told", [FOUND])
    judge = Judge((costly, BlockingWord("other")), embed=embed)
    policies = in_force(told=rule(shadow=shadow), other=rule(Action.BLOCK))
    bad, good = await assess(judge, workers, policies, texts=("bad", "good"))
    assert costly.asked == (2 if shadow else 1)
    assert bad.action is Action.BLOCK
    assert bad.complete
    assert [verdict.detector for verdict in good.verdicts] == ["told"]


async def test_a_candidate_is_told_beside_the_policy_and_changes_nothing(workers: Workers) -> None:
    """Its verdicts are shadows under its own version; what both ask is asked once."""
    told, other = ToldDetector("told", [FOUND]), ToldDetector("other", [FOUND])
    policy = Policy("acme", {"told": rule(Action.FLAG)})
    candidate = Policy("acme", {"told": rule(Action.REDACT), "other": rule(Action.BLOCK)})
    judge = Judge((told, other))
    (assessment,) = await assess(judge, workers, PoliciesInForce(policy, candidate))
    assert assessment.action is Action.FLAG
    assert assessment.replaceable == ()
    assert [(verdict.action, verdict.policy_version, verdict.shadow) for verdict in assessment.verdicts] == [
        (Action.FLAG, policy.version, False),
        (Action.REDACT, candidate.version, True),
        (Action.BLOCK, candidate.version, True),
    ]
    assert (told.asked, other.asked) == (1, 1)


async def test_a_policy_in_shadow_decides_and_does_nothing(workers: Workers) -> None:
    """Findings and failures alike."""
    detectors: tuple[Detector, ...] = (ToldDetector("told", ValueError()), ToldDetector("other", [FOUND]))
    rules = {"told": rule(failing=OnFailure.CLOSED), "other": rule(Action.REDACT)}
    (assessment,) = await assess(Judge(detectors), workers, PoliciesInForce(Policy("acme", rules, shadow=True)))
    assert assessment.action is Action.ALLOW
    assert assessment.replaceable == ()
    assert [verdict.shadow for verdict in assessment.verdicts] == [True, True]
