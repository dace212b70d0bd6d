"""All deterministic metrics over one subject, in a stated order.

Pure; the one list of metrics, used by the consumer and by `ScoreAnswer` alike.
"""

from collections.abc import Callable, Mapping

from servicekit.domain.score import Metric, Score
from services.evaluator.citations import score_citation_precision
from services.evaluator.groundedness import score_groundedness
from services.evaluator.refusal import score_answer_length, score_refusal
from services.evaluator.relevance import score_answer_relevance, score_context_relevance
from services.evaluator.subject import Subject

METRICS: Mapping[Metric, Callable[[Subject], Score]] = {
    Metric.GROUNDEDNESS: score_groundedness,
    Metric.ANSWER_RELEVANCE: score_answer_relevance,
    Metric.CONTEXT_RELEVANCE: score_context_relevance,
    Metric.CITATION_PRECISION: score_citation_precision,
    Metric.ANSWER_LENGTH: score_answer_length,
    Metric.REFUSAL: score_refusal,
}


def score_subject(subject: Subject, *, metrics: frozenset[Metric] | None = None) -> tuple[Score, ...]:
    """One score per metric in the order of `METRICS`; `metrics` chooses some, None takes all."""
    return tuple(score(subject) for metric, score in METRICS.items() if metrics is None or metric in metrics)
