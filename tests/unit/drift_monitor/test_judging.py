"""Holm's correction, and what counts as drift."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.drift_monitor.holm import holm_thresholds
from services.drift_monitor.judging import Comparison, Measured, Strictness, Test, comparisons_of, judge, summarise
from services.drift_monitor.windows import Observation, Window
from tests.unit.drift_monitor.drift_fakes import START, MeansLaboratory


def significant(p_values: dict[str, float], alpha: float) -> set[str]:
    """The names whose p-value does not exceed their threshold."""
    return {name for name, limit in holm_thresholds(p_values, alpha=alpha).items() if p_values[name] <= limit}


def test_holm_steps_down() -> None:
    """Of three, the smallest is held against alpha/3, the next against alpha/2, the last against alpha."""
    assert significant({"a": 0.01, "b": 0.024, "c": 0.04}, 0.05) == {"a", "b", "c"}
    assert significant({"a": 0.01, "b": 0.03, "c": 0.04}, 0.05) == {"a"}


p_values_strategy = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.floats(0, 1), max_size=12)


@given(p_values=p_values_strategy, alpha=st.floats(0.0001, 0.2))
def test_holm_lies_between_bonferroni_and_no_correction(p_values: dict[str, float], alpha: float) -> None:
    """It finds all that Bonferroni finds, and nothing above alpha."""
    found = significant(p_values, alpha)
    assert {name for name, p in p_values.items() if p <= alpha / len(p_values)} <= found
    assert all(p_values[name] <= alpha for name in found)


@given(p_values=p_values_strategy, alpha=st.floats(0.0001, 0.2))
def test_holm_never_passes_over_a_smaller_p_value(p_values: dict[str, float], alpha: float) -> None:
    """Whatever is significant, everything with a smaller p-value is too."""
    found = significant(p_values, alpha)
    for name in found:
        assert all(other in found for other, p in p_values.items() if p < p_values[name])


def windowed(values: list[dict[str, float]]) -> Window:
    """A window of requests with these signals."""
    seen = [Observation(START + timedelta(seconds=place), f"r-{place}", known) for place, known in enumerate(values)]
    return Window(tuple(seen), sealed=True)


def test_a_signal_with_too_few_values_is_not_compared() -> None:
    """Scores that have not all arrived yet are waited for."""
    reference = windowed([{"question_words": 1.0, "groundedness": 1.0}] * 10)
    current = windowed([{"question_words": 1.0, "groundedness": 1.0}] * 3 + [{"question_words": 1.0}] * 5)
    found = comparisons_of(reference, current, min_size=4)
    assert [asked.signal for asked in found] == ["question_words"]


def test_binary_signals_are_compared_as_proportions() -> None:
    """A 0/1 signal takes the z-test, every other one Kolmogorov-Smirnov."""
    part = windowed([{"blocked": 0.0, "latency_ms": 3.0}] * 4)
    tests = {asked.signal: asked.test for asked in comparisons_of(part, part, min_size=4)}
    assert tests == {"latency_ms": Test.KOLMOGOROV_SMIRNOV, "blocked": Test.PROPORTIONS_Z}


def compared(reference: list[float], current: list[float], signal: str = "question_words") -> Comparison:
    """Two samples of a signal."""
    return Comparison(signal, Test.KOLMOGOROV_SMIRNOV, reference, current, 1.0)


async def test_a_signal_that_never_varies_has_not_drifted_and_is_not_asked_about() -> None:
    """It still gets a finding, so that an alert about it can resolve."""
    laboratory = MeansLaboratory()
    (found,) = await judge([compared([0.0] * 5, [0.0] * 5)], laboratory, strictness=Strictness())
    assert (found.drifted, found.p_value, found.effect) == (False, 1.0, 0.0)
    assert laboratory.asked == []


class Certain(MeansLaboratory):
    """Every difference is significant."""

    async def compare(self, comparisons: list[Comparison]) -> list[Measured]:  # type: ignore[override]  # a fake
        """P is 0; the effect is the difference of the first values."""
        return [Measured(0.0, abs(asked.reference[0] - asked.current[0])) for asked in comparisons]


async def test_a_significant_but_small_shift_is_no_drift() -> None:
    """Large windows make every difference significant; the effect must be large too."""
    asked = [compared([1.0, 2.0], [1.5, 2.5], "question_words"), compared([1.0, 2.0], [4.0, 5.0], "latency_ms")]
    found = await judge(asked, Certain(), strictness=Strictness(min_effect=0.8))
    assert [finding.drifted for finding in found] == [False, True]


def test_a_summary_is_count_mean_and_population_deviation() -> None:
    """Of 2, 4, 4, 4, 5, 5, 7, 9 the mean is 5 and the deviation 2."""
    summary = summarise([2, 4, 4, 4, 5, 5, 7, 9])
    assert (summary.count, summary.mean, summary.deviation) == (8, 5.0, 2.0)
