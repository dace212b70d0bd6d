"""Metrics of scoring. Set by `events.py`; the labels are metric names, of which there is a fixed list."""

from servicekit.telemetry.metrics import counter, histogram

# Scores published; measured is "yes", or "no" for those with a reason instead of a value.
SCORED = counter("evaluations_scored", meaning="Scores published.", labels=("metric", "measured"))
# From the event in hand to its last score acknowledged, chunk texts included.
SCORE_SECONDS = histogram("evaluation", meaning="Time to score and publish one interaction.")
