"""What an interaction, a score or a verdict says about a request's signals.

Pure; the one mapping, used for events (`convert.py`) and for rows of the analytics store (`restoring.py`), so
that a window rebuilt from either is the same.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

# ASCII blank space, as in the store's regular expressions.
_WORD = re.compile(r"[^\t\n\f\r ]+")
_FEEDBACK_PREFIX = "feedback."
_SIGNAL_OF_METRIC = {
    "groundedness": "groundedness",
    "answer_relevance": "answer_relevance",
    "context_relevance": "context_relevance",
    "citation_precision": "citation_precision",
    "refusal": "refused",
}


class Outcome(StrEnum):
    """The outcomes that signals depend on; every other one is OTHER."""

    ANSWERED = "ANSWERED"
    BLOCKED = "BLOCKED"
    REFUSED = "REFUSED"
    OTHER = "OTHER"

    @classmethod
    def named(cls, name: str) -> "Outcome":
        """By the name that the store and the protos use."""
        return cls(name) if name in set(cls) else cls.OTHER


@dataclass(frozen=True, slots=True)
class InteractionFacts:
    """An interaction as far as signals go; `top_score` is None without retrieval."""

    outcome: Outcome
    question_words: int
    answer_words: int
    top_score: float | None
    duration_us: int
    time_to_first_token_us: int
    cost_microusd: int
    guardrail_found: bool


def count_words(text: str) -> int:
    """Pieces between ASCII blank space."""
    return sum(1 for _ in _WORD.finditer(text))


def signals_of(facts: InteractionFacts) -> dict[str, float]:
    """The signals of one interaction.

    Length, latency and cost are those of answers alone: a blocked request is short, fast and cheap, and its
    share is a signal of its own. Failures and cancellations say nothing about refusing or blocking.
    """
    values = {
        "question_words": float(facts.question_words),
        "guardrail_found": float(facts.guardrail_found),
    }
    if facts.top_score is not None:
        values["retrieval_top_score"] = facts.top_score
    if facts.outcome is not Outcome.OTHER:
        values["refused"] = float(facts.outcome is Outcome.REFUSED)
        values["blocked"] = float(facts.outcome is Outcome.BLOCKED)
    if facts.outcome is Outcome.ANSWERED:
        values["answer_words"] = float(facts.answer_words)
        values["latency_ms"] = facts.duration_us / 1_000
        values["cost_microusd"] = float(facts.cost_microusd)
        if facts.time_to_first_token_us > 0:
            values["time_to_first_token_ms"] = facts.time_to_first_token_us / 1_000
    return values


def signals_of_score(metric: str, value: float) -> Mapping[str, float]:
    """The signal of one score; none for a metric that is not watched."""
    if metric.startswith(_FEEDBACK_PREFIX):
        return {"feedback": value}
    signal = _SIGNAL_OF_METRIC.get(metric)
    return {} if signal is None else {signal: value}


def signals_of_decision(*, found: bool) -> Mapping[str, float]:
    """The signal of one guardrail decision: whether it did anything but allow."""
    return {"guardrail_found": float(found)}
