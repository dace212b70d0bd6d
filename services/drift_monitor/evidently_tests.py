"""Evidently's tests and its report, over plain lists.

Imported by `worker.py` alone, in a process of its own: importing Evidently takes seconds and 300 MB.
"""

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

os.environ.setdefault("DO_NOT_TRACK", "1")  # Evidently's usage statistics stay off

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.core.metric_types import Metric
from evidently.legacy.calculations.stattests import StatTest, ks_stat_test, wasserstein_stat_test, z_stat_test
from evidently.legacy.core import ColumnType
from evidently.metrics import ValueDrift

# Evidently's floor under the reference's standard deviation in its normed Wasserstein distance.
_EVIDENTLY_LEAST_DEVIATION = 0.001
_TESTS: Mapping[str, tuple[StatTest, ColumnType]] = {
    "ks": (ks_stat_test, ColumnType.Numerical),
    "z": (z_stat_test, ColumnType.Categorical),
}


def compare(
    *, test: str, reference: Sequence[float], current: Sequence[float], resolution: float
) -> tuple[float, float]:
    """The p-value of Evidently's `test` ("ks" or "z"), and the effect.

    The effect is Evidently's normed Wasserstein distance: how far the values moved on average, in standard
    deviations of the reference, here with `resolution` as the least deviation instead of Evidently's 0.001.
    """
    before, after = pd.Series(reference, dtype=float), pd.Series(current, dtype=float)
    stat_test, column_type = _TESTS[test]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy on ties and small samples: the p-value it then gives is meant
        p_value = stat_test(before, after, column_type, None).drift_score
        normed = wasserstein_stat_test(before, after, ColumnType.Numerical, None).drift_score
    deviation = float(np.std(before))
    distance = float(normed) * max(deviation, _EVIDENTLY_LEAST_DEVIATION)
    # Where a test is undefined it has found nothing.
    return 1.0 if math.isnan(p_value) else float(p_value), distance / max(deviation, resolution)


def render_report(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """An HTML page of its own: per signal the test's value, its threshold and both distributions.

    Each comparison has `signal`, `test`, `reference`, `current` and `threshold`.
    """
    names = [str(asked["signal"]) for asked in comparisons]
    binary = [str(asked["signal"]) for asked in comparisons if asked["test"] == "z"]
    definition = DataDefinition(
        numerical_columns=[name for name in names if name not in binary], categorical_columns=binary
    )
    metrics: list[Metric] = [
        ValueDrift(column=str(asked["signal"]), method=str(asked["test"]), threshold=float(asked["threshold"]))
        for asked in comparisons
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        snapshot = Report(metrics).run(
            Dataset.from_pandas(_frame(comparisons, "current"), data_definition=definition),
            Dataset.from_pandas(_frame(comparisons, "reference"), data_definition=definition),
        )
        return str(snapshot.get_html_str(as_iframe=False))


def _frame(comparisons: Sequence[Mapping[str, Any]], side: str) -> pd.DataFrame:
    """One column per signal; requests without a value are not in the lists, so columns differ in length."""
    return pd.DataFrame({str(asked["signal"]): pd.Series(asked[side], dtype=float) for asked in comparisons})
