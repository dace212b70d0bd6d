"""The scalar signals that are watched, what each tells, and how small a change of each is nothing.

Pure; read by `windows.py`, `judging.py` and the reports.
"""

import math
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from enum import StrEnum


class Scale(StrEnum):
    """What kind of number a signal is; it decides the statistical test."""

    CONTINUOUS = "continuous"
    BINARY = "binary"


@dataclass(frozen=True, slots=True)
class Signal:
    """One scalar per request.

    `resolution` is the smallest standard deviation that an effect is measured in, in the signal's unit:
    a reference that never varies would make any change infinitely large.
    """

    name: str
    scale: Scale
    resolution: float
    meaning: str


SIGNALS: Mapping[str, Signal] = {
    signal.name: signal
    for signal in (
        Signal("question_words", Scale.CONTINUOUS, 1.0, "words of the question"),
        Signal("answer_words", Scale.CONTINUOUS, 3.0, "words of the answer"),
        Signal("retrieval_top_score", Scale.CONTINUOUS, 0.05, "score of the best chunk"),
        Signal("groundedness", Scale.CONTINUOUS, 0.05, "share of the answer that the chunks support, 0 to 1"),
        Signal("answer_relevance", Scale.CONTINUOUS, 0.05, "share of the question that the answer takes up"),
        Signal("context_relevance", Scale.CONTINUOUS, 0.05, "share of the question that the chunks take up"),
        Signal("citation_precision", Scale.CONTINUOUS, 0.05, "share of citations whose chunk supports them"),
        Signal("latency_ms", Scale.CONTINUOUS, 25.0, "whole time of the request in milliseconds"),
        Signal("time_to_first_token_ms", Scale.CONTINUOUS, 25.0, "milliseconds to the first released token"),
        Signal("cost_microusd", Scale.CONTINUOUS, 10.0, "cost in millionths of a US dollar"),
        Signal("refused", Scale.BINARY, 0.2, "the answer declines, 0 or 1"),
        Signal("blocked", Scale.BINARY, 0.2, "a guardrail blocked question or answer, 0 or 1"),
        Signal("guardrail_found", Scale.BINARY, 0.2, "a guardrail found anything at all, 0 or 1"),
        Signal("feedback", Scale.CONTINUOUS, 0.1, "users' feedback, 0 worst to 1 best"),
    )
}


def merge_values(known: MutableMapping[str, float], further: Mapping[str, float]) -> bool:
    """Add further values of one request; True if anything changed.

    A binary signal is on once anything says so (several verdicts tell of one request); of a continuous one the
    latest value stands. Names that are no signals, and values that are no finite numbers, are left out.
    """
    changed = False
    for name, value in further.items():
        signal = SIGNALS.get(name)
        if signal is None or not math.isfinite(value):
            continue
        merged = max(known.get(name, 0.0), float(value)) if signal.scale is Scale.BINARY else float(value)
        if known.get(name) != merged:
            known[name] = merged
            changed = True
    return changed
