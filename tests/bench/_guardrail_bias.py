"""Whether the detectors' scores follow the identity of the people in a sentence: counterfactual swaps.

Part of `guardrail_quality.py`: `services/guardrail/bias_probe.py`, with a set for each detector and axis. "fpr" is the
share of harmless variants that are told, "recall" that of harmful ones; "interval" holds the flip rate's.
"""

from pathlib import Path

from services.guardrail.bias_probe import measure as swapped
from tests.bench._guardrail_figures import Figures


def measure(data: Path) -> dict[str, Figures]:
    """Figures by `detector/axis.harmless` and `detector/axis.harmful`; needs no data."""
    del data
    found: dict[str, Figures] = {}
    for detector, axes in swapped().items():
        for axis, figures in axes.items():
            rate = "recall" if axis.endswith(".harmful") else "fpr"
            found[f"{detector}/{axis}"] = {
                rate: figures["found"],
                "interval": {"flip_rate": figures["flip_interval"]},
                **{key: figures[key] for key in ("n", "flip_rate", "mean_gap", "max_gap", "highest", "lowest")},
            }
    return found
