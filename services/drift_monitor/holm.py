"""Holm's step-down correction: many signals are tested at once and one false alarm is one too many.

Pure; called by `judging.py`.
"""

from collections.abc import Mapping


def holm_thresholds(p_values: Mapping[str, float], *, alpha: float) -> Mapping[str, float]:
    """For each name the threshold that its p-value must not exceed to be significant.

    Sorted ascending, the i-th of m p-values is held against `alpha / (m - i)` (i from 0), and none is
    significant after the first that fails (Holm 1979, "A Simple Sequentially Rejective Multiple Test
    Procedure"). After that failure the threshold given is the failed one's, which the later, larger p-values
    exceed as well. The probability of any false alarm among the m stays at most `alpha`, whatever their
    dependence.
    """
    thresholds: dict[str, float] = {}
    failed: float | None = None
    for place, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda item: (item[1], item[0]))):
        threshold = alpha / (len(p_values) - place) if failed is None else failed
        thresholds[name] = threshold
        if not p_value <= threshold and failed is None:
            failed = threshold
    return thresholds
