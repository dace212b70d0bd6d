"""Judges one current window against the reference: which signals have drifted, and how far.

Decides what to test and what a result means; the statistics themselves come through the `Laboratory` port.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from services.drift_monitor.holm import holm_thresholds
from services.drift_monitor.signals import SIGNALS, Scale
from services.drift_monitor.windows import Window


class Test(StrEnum):
    """Evidently's names of the tests that are used; both give p-values."""

    __test__ = False  # no test case, whatever pytest thinks of the name

    KOLMOGOROV_SMIRNOV = "ks"
    PROPORTIONS_Z = "z"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two samples of one signal to be compared; `resolution` is the least deviation an effect is measured in."""

    signal: str
    test: Test
    reference: Sequence[float]
    current: Sequence[float]
    resolution: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What a test found: its p-value, and the shift in standard deviations of the reference."""

    p_value: float
    effect: float


_NO_DIFFERENCE = Measured(p_value=1.0, effect=0.0)


LABORATORY_FAILED = "LABORATORY_FAILED"
"""Reason of a BackendUnavailable that would only repeat itself: the laboratory lives and cannot compute this."""


class Laboratory(Protocol):
    """Where statistics are computed; outside the event loop, because Evidently takes seconds to import."""

    async def compare(self, comparisons: Sequence[Comparison]) -> Sequence[Measured]:
        """One result per comparison, in order.

        Raises:
            BackendUnavailable, BackendTimeout: the laboratory does not answer; it is started again.
        """
        ...

    async def render_report(self, comparisons: Sequence[Comparison], *, thresholds: Mapping[str, float]) -> bytes:
        """An HTML page of its own about these comparisons."""
        ...


@dataclass(frozen=True, slots=True)
class Strictness:
    """When a difference is drift: significant after Holm's correction at `alpha`, and `min_effect` or more."""

    alpha: float = 0.001
    min_effect: float = 0.8


@dataclass(frozen=True, slots=True)
class Summary:
    """A window of one signal in numbers; `deviation` is of the population (n), 0 for a single value."""

    count: int
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of one signal in one window."""

    signal: str
    test: Test
    p_value: float
    threshold: float
    effect: float
    drifted: bool
    reference: Summary
    current: Summary


def comparisons_of(reference: Window, current: Window, *, min_size: int) -> tuple[Comparison, ...]:
    """The signals that both windows have `min_size` values of."""
    found = []
    for signal in SIGNALS.values():
        before, after = reference.values(signal.name), current.values(signal.name)
        if min(len(before), len(after)) < min_size:
            continue
        test = Test.PROPORTIONS_Z if signal.scale is Scale.BINARY else Test.KOLMOGOROV_SMIRNOV
        found.append(Comparison(signal.name, test, before, after, signal.resolution))
    return tuple(found)


async def judge(
    comparisons: Sequence[Comparison], laboratory: Laboratory, *, strictness: Strictness
) -> tuple[Finding, ...]:
    """One finding per comparison, in order.

    A signal that never varies in either window cannot have drifted: it is not tested and has no part in Holm's
    correction, and its finding says p = 1.

    Raises:
        BackendUnavailable, BackendTimeout: the laboratory does not answer.
    """
    varying = [asked for asked in comparisons if len({*asked.reference, *asked.current}) > 1]
    results = await laboratory.compare(varying) if varying else ()
    measured = {asked.signal: found for asked, found in zip(varying, results, strict=True)}
    p_values = {name: found.p_value for name, found in measured.items()}
    thresholds = holm_thresholds(p_values, alpha=strictness.alpha)
    return tuple(
        _finding(
            asked,
            measured.get(asked.signal, _NO_DIFFERENCE),
            threshold=thresholds.get(asked.signal, strictness.alpha),
            min_effect=strictness.min_effect,
        )
        for asked in comparisons
    )


def _finding(asked: Comparison, found: Measured, *, threshold: float, min_effect: float) -> Finding:
    return Finding(
        signal=asked.signal,
        test=asked.test,
        p_value=found.p_value,
        threshold=threshold,
        effect=found.effect,
        drifted=found.p_value <= threshold and found.effect >= min_effect,
        reference=summarise(asked.reference),
        current=summarise(asked.current),
    )


def summarise(values: Sequence[float]) -> Summary:
    """Count, mean and population deviation of the values (at least one)."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
    return Summary(len(values), mean, math.sqrt(variance))
