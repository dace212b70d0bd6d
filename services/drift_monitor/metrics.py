"""Metrics of the drift monitor. Set by `monitor.py` and `watching.py`; labels are signals, of a fixed list."""

from servicekit.telemetry.metrics import counter, gauge, histogram

# Windows judged; one is judged again when it has grown or scores have come in.
JUDGED = counter("drift_windows_judged", meaning="Judgements of a window against its reference.")
# From the windows to the findings, the laboratory included.
JUDGE_SECONDS = histogram("drift_judgement", meaning="Time to judge one window.")
# Changes of alerts by their new state.
CHANGED = counter("drift_alerts_changed", meaning="Changes of alerts.", labels=("signal", "state"))
# Segments watched; those refused beyond the bound are left out of it.
SEGMENTS = gauge("drift_segments", meaning="Segments watched.")
