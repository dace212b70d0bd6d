"""Tests that no text stalls a check: fifty texts made for that, judged whole within a bound.

Their times at full length are figures of `python -m tests.bench.guardrail_latency`.
"""

import time

import pytest

from servicekit.domain.verdict import Surface
from services.guardrail.detectors.catalogue import all_detectors
from services.guardrail.judging import Judge
from services.guardrail.policy_file import default_policy
from tests.bench._guardrail_evil import evil_inputs

CHARS = 8_000
BOUND_S = 10.0  # one second is the most at rest: the remainder is for a machine with other things to do

DETECTORS = all_detectors()
POLICY = default_policy(DETECTORS)


@pytest.fixture(scope="module")
def judge() -> Judge:
    """All detectors, without an embedder."""
    return Judge(DETECTORS)


def test_there_are_fifty_of_the_length_asked_for() -> None:
    """Each maker keeps to the length, so that the bench's figures are of what they say."""
    made = [make(1_000) for make in evil_inputs().values()]
    assert [len(text) for text in made] == [1_000] * 50
    assert len(set(made)) == 50


@pytest.mark.parametrize("name", evil_inputs())
def test_an_evil_text_is_judged_in_bounded_time(judge: Judge, name: str) -> None:
    """On every surface that a stranger can write to; no detector fails on it."""
    text = evil_inputs()[name](CHARS)
    begin = time.perf_counter()
    found = [judge.assess(surface, text, policy=POLICY) for surface in (Surface.INPUT, Surface.RETRIEVED)]
    assert time.perf_counter() - begin < BOUND_S
    assert all(assessment.complete for assessment in found)
