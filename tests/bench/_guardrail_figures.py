"""Figures of a detector on one set: rates with their intervals, of texts and of spans.

Pure; used by `guardrail_quality.py` and by every `_guardrail_<what>.py` beside it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from typing import Any

from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

Figures = dict[str, Any]
"""What one set gives: "auroc", "recall", "fpr", "precision", "f1", "n", "interval", or "skipped" and why."""

Measure = Callable[[Path], Mapping[str, Figures]]
"""`measure(data)` of a `_guardrail_<what>.py`: figures by the name of the set."""

_Z = 1.959964
"""95 % of a normal distribution."""


def binary_figures(scores: Sequence[float], labels: Sequence[bool], threshold: float) -> Figures:
    """Figures of scores against labels (true: what the detector looks for); flagged is `score >= threshold`.

    A rate without a denominator is None. "interval" holds 95 % intervals: Wilson's for rates, Hanley and McNeil's
    (1982) for the AUROC.
    """
    if len(scores) != len(labels):
        raise ValueError(f"as many scores as labels, got {len(scores)} and {len(labels)}")
    flagged = [score >= threshold for score in scores]
    hits = sum(flag and label for flag, label in zip(flagged, labels, strict=True))
    alarms = sum(flagged) - hits
    positives = sum(labels)
    area = auroc(scores, labels)
    return {
        "auroc": _rounded(area),
        **_rates(hits, flagged=sum(flagged), expected=positives),
        "fpr": _share(alarms, len(labels) - positives),
        "n": len(labels),
        "positives": positives,
        "threshold": threshold,
        "interval": {
            "auroc": _area_interval(area, positives, len(labels) - positives),
            "recall": wilson(hits, positives),
            "fpr": wilson(alarms, len(labels) - positives),
            "precision": wilson(hits, sum(flagged)),
        },
    }


@dataclass(frozen=True, slots=True, order=True)
class LabelledSpan:
    """A place in a text and what stands there; `score` is the detector's, 1 for what was expected."""

    start: int
    end: int
    kind: str
    score: float = 1.0


@dataclass(frozen=True, slots=True)
class JudgedSpans:
    """One text's spans: those that are there and those that were found."""

    expected: tuple[LabelledSpan, ...]
    found: tuple[LabelledSpan, ...]


def span_figures(texts: Sequence[JudgedSpans], threshold: float = 0.0) -> Figures:
    """Figures of spans found with at least `threshold`: the same borders and kind, or it is no match.

    "overlapping" counts half of the characters of both together as a match. "auroc" and "fpr" are by the text: the
    strongest span against whether there is any; texts without a span in which one is found.
    """
    kept = [replace(text, found=tuple(span for span in text.found if span.score >= threshold)) for text in texts]
    expected = sum(len(text.expected) for text in kept)
    found = sum(len(text.found) for text in kept)
    exact = sum(_exact_matches(text) for text in kept)
    empty = [text for text in kept if not text.expected]
    alarms = sum(bool(text.found) for text in empty)
    strongest = [max((span.score for span in text.found), default=0.0) for text in texts]
    area = auroc(strongest, [bool(text.expected) for text in texts])
    return {
        "auroc": _rounded(area),
        **_rates(exact, flagged=found, expected=expected),
        "fpr": _share(alarms, len(empty)),
        "n": len(texts),
        "spans": expected,
        "threshold": threshold,
        "overlapping": _rates(sum(_overlapping_matches(text) for text in kept), flagged=found, expected=expected),
        "interval": {
            "auroc": _area_interval(area, len(texts) - len(empty), len(empty)),
            "recall": wilson(exact, expected),
            "fpr": wilson(alarms, len(empty)),
            "precision": wilson(exact, found),
        },
    }


def skipped(reason: str) -> Figures:
    """A set that was not measured, and why."""
    return {"skipped": reason}


def auroc(scores: Sequence[float], labels: Sequence[bool]) -> float | None:
    """The chance that what is looked for scores higher than what is not, a tie counting half; None for one class."""
    return float(roc_auc_score(labels, scores)) if 0 < sum(labels) < len(labels) else None


def threshold_at_fpr(scores: Sequence[float], labels: Sequence[bool], fpr: float) -> float:
    """The lowest threshold at which at most `fpr` of the negatives are flagged; above all of them if need be."""
    negatives = sorted((score for score, label in zip(scores, labels, strict=True) if not label), reverse=True)
    allowed = int(fpr * len(negatives))
    if allowed >= len(negatives):
        return min(scores, default=0.0)
    above = [score for score in scores if score > negatives[allowed]]
    return min(above, default=negatives[allowed] + 1e-9)


def wilson(count: int, total: int) -> list[float] | None:
    """Wilson's 95 % interval of a share."""
    if not total:
        return None
    low, high = proportion_confint(count, total, alpha=0.05, method="wilson")
    return [round(float(low), 4), round(float(high), 4)]


def _area_interval(area: float | None, positives: int, negatives: int) -> list[float] | None:
    if area is None:
        return None
    both_positive, both_negative = area / (2 - area), 2 * area * area / (1 + area)
    variance = area * (1 - area)
    variance += (positives - 1) * (both_positive - area * area) + (negatives - 1) * (both_negative - area * area)
    error = _Z * sqrt(max(0.0, variance) / (positives * negatives))
    return [round(max(0.0, area - error), 4), round(min(1.0, area + error), 4)]


def _rates(hits: int, *, flagged: int, expected: int) -> Figures:
    return {
        "recall": _share(hits, expected),
        "precision": _share(hits, flagged),
        "f1": _share(2 * hits, flagged + expected),
    }


def _share(count: int, total: int) -> float | None:
    return round(count / total, 4) if total else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _exact_matches(text: JudgedSpans) -> int:
    return (_places(text.expected) & _places(text.found)).total()


def _places(spans: Iterable[LabelledSpan]) -> Counter[tuple[int, int, str]]:
    return Counter((span.start, span.end, span.kind) for span in spans)


def _overlapping_matches(text: JudgedSpans) -> int:
    """Each found span takes the first expected one of its kind that it covers, and that covers it, by half."""
    left = sorted(text.expected)
    for span in sorted(text.found):
        match = next((other for other in left if _covers_half(span, other)), None)
        if match:
            left.remove(match)
    return len(text.expected) - len(left)


def _covers_half(one: LabelledSpan, other: LabelledSpan) -> bool:
    common = min(one.end, other.end) - max(one.start, other.start)
    return one.kind == other.kind and 2 * common >= max(one.end, other.end) - min(one.start, other.start)
