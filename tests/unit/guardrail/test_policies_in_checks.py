"""Tests of policies at work in checks: by route, changed in the middle of one, and candidates beside them."""

import asyncio
import os
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest

from servicekit.domain.verdict import Action, Finding, Span
from servicekit.testing.clocks import FakeClock
from services.guardrail.checking import CheckContext, Guardrail, RetrievedText
from services.guardrail.detectors.catalogue import all_detectors
from services.guardrail.detectors.detector import Detector
from services.guardrail.judging import Judge
from services.guardrail.policy_store import PolicyStore
from services.guardrail.retrieved_cache import RetrievedCache
from services.guardrail.workers import Workers
from tests.unit.guardrail.guardrail_fakes import HangingDetector, Recorded, ToldDetector, make_vault

DETECTORS = all_detectors()
FOUND = Finding("secret.rule", 0.95, Span(0, 3), "SECRET")
CONTEXT = CheckContext("acme", request_id="r-1", route="support")
TIMES = count(1_000_000_000)


def write(path: Path, source: str) -> None:
    """A policy file with a time of its own, however fast the test is."""
    path.write_text(source, "utf-8")
    stamp = next(TIMES)
    os.utime(path, (stamp, stamp))


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    """One thread."""
    async with Workers(threads=1, queue=4) as workers:
        yield workers


def guardrail(store: PolicyStore, workers: Workers, record: Recorded, *detectors: Detector) -> Guardrail:
    """A guardrail over these policies."""
    store.load()
    return Guardrail(
        judge=Judge(detectors),
        policies=store,
        cache=RetrievedCache(capacity=10),
        workers=workers,
        record=record,
        clock=FakeClock(),
        vault=make_vault(clock=FakeClock()),
    )


async def test_a_change_in_the_middle_of_a_check_applies_from_the_next_one(tmp_path: Path, workers: Workers) -> None:
    """The check that has begun is decided, stamped and recorded by the policy that it began with."""
    file, record = tmp_path / "acme.yaml", Recorded()
    write(file, "detectors: {secret: {input: flag}, injection: {timeout_ms: 60000}}")
    store = PolicyStore(tmp_path, detectors=DETECTORS)
    hanging = HangingDetector("injection")
    subject = guardrail(store, workers, record, hanging, ToldDetector("secret", [FOUND]))
    before = store.in_force("acme").policy.version
    checking = asyncio.create_task(subject.check_input("abcdef", CONTEXT, deadline_s=None))
    await asyncio.to_thread(hanging.begun.acquire)
    write(file, "detectors: {secret: {input: block}}")
    assert store.reload_if_changed()
    hanging.release.set()
    begun = await checking
    following = await subject.check_input("abcdef", CONTEXT, deadline_s=None)
    assert (begun.action, begun.policy_version) == (Action.FLAG, before)
    assert (following.action, following.policy_version) == (Action.BLOCK, store.in_force("acme").policy.version)
    assert [decision.policy_version for decision in record.decisions] == [before, following.policy_version]


async def test_a_route_has_its_own_policy(tmp_path: Path, workers: Workers) -> None:
    """Its version names it; another route goes by the tenant's."""
    write(tmp_path / "acme.yaml", "routes: {support: {detectors: {secret: {input: block}}}}")
    store = PolicyStore(tmp_path, detectors=DETECTORS)
    subject = guardrail(store, workers, Recorded(), ToldDetector("secret", [FOUND]))
    support = await subject.check_input("abcdef", CONTEXT, deadline_s=None)
    sales = await subject.check_input("abcdef", CheckContext("acme", route="sales"), deadline_s=None)
    assert (support.action, sales.action) == (Action.BLOCK, Action.REDACT)
    assert support.policy_version.startswith("acme/support@")
    assert {verdict.policy_version for verdict in support.verdicts} == {support.policy_version}


async def test_a_candidate_is_recorded_and_changes_no_answer(tmp_path: Path, workers: Workers) -> None:
    """One decision holds both policies' verdicts; what is kept of a chunk is not mixed up when the candidate goes."""
    write(tmp_path / "acme.shadow.yaml", "detectors: {secret: {input: block, retrieved: block}}")
    store, record = PolicyStore(tmp_path, detectors=DETECTORS), Recorded()
    subject = guardrail(store, workers, record, ToldDetector("secret", [FOUND]))
    judgement = await subject.check_input("abcdef", CONTEXT, deadline_s=None)
    assert (judgement.action, judgement.text) == (Action.REDACT, "[SECRET_1]def")
    (decision,) = record.decisions
    assert decision.action is Action.REDACT
    candidate = store.in_force("acme", "support").candidate
    assert candidate is not None
    assert [(verdict.action, verdict.shadow) for verdict in decision.verdicts] == [
        (Action.REDACT, False),
        (Action.BLOCK, True),
    ]
    assert decision.verdicts[1].policy_version == candidate.version
    for expected in (2, 1):
        judged = await subject.check_retrieved([RetrievedText("1", "abcdef")], CONTEXT, deadline_s=None)
        assert len(judged.judgements[0][1].verdicts) == expected
        (tmp_path / "acme.shadow.yaml").unlink(missing_ok=True)
        store.reload_if_changed()
