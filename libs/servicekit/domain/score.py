"""What an evaluation of one answer says: a metric, its version, and a value or the reason why there is none.

Pure; made by the evaluator, read by the drift monitor, carried as `EvaluationScored`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class Metric(StrEnum):
    """The deterministic metrics; the string is the metric's public name in events and tables."""

    GROUNDEDNESS = "groundedness"
    ANSWER_RELEVANCE = "answer_relevance"
    CONTEXT_RELEVANCE = "context_relevance"
    CITATION_PRECISION = "citation_precision"
    ANSWER_LENGTH = "answer_length"
    REFUSAL = "refusal"


class Unmeasured(StrEnum):
    """Why a metric has no value for this interaction; stable, for analysts to group by."""

    BLOCKED = "BLOCKED"
    NO_ANSWER = "NO_ANSWER"
    NO_QUESTION = "NO_QUESTION"
    NO_CHUNKS = "NO_CHUNKS"
    NO_CITATIONS = "NO_CITATIONS"
    REFUSED = "REFUSED"
    CHUNK_ERASED = "CHUNK_ERASED"
    CHUNK_NOT_FOUND = "CHUNK_NOT_FOUND"
    NOT_NUMERIC = "NOT_NUMERIC"


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one answer: exactly one of `value` and `unmeasured` is set.

    `metric` is a `Metric` or, for feedback, `feedback.<kind>`; `version` changes whenever its formula does,
    so that scores of two versions are never averaged together.
    """

    metric: str
    version: str
    value: float | None
    unmeasured: Unmeasured | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.unmeasured is None):
            raise ValueError(
                f"a score has a value or a reason, got value={self.value!r}, unmeasured={self.unmeasured!r}"
            )

    @classmethod
    def measured(cls, metric: str, version: str, value: float) -> Self:
        """A score with a value."""
        return cls(metric, version, value)

    @classmethod
    def missing(cls, metric: str, version: str, reason: Unmeasured) -> Self:
        """A score that could not be measured."""
        return cls(metric, version, None, reason)
