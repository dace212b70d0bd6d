"""Answer relevance and context relevance by shared content terms, without a model.

Pure; called by `scoring.py`. Embedding-based versions would be new metric versions, not changes of these.
"""

import math

from servicekit.domain.score import Metric, Score, Unmeasured
from servicekit.domain.sentences import content_terms
from services.evaluator.subject import Subject

ANSWER_RELEVANCE_VERSION = "terms-1"
CONTEXT_RELEVANCE_VERSION = "terms-dcg-1"


def score_answer_relevance(subject: Subject) -> Score:
    """How much of the question the answer takes up, 0 to 1.

    `|T(q) ∩ T(a)| / |T(q)|` over the sets of stemmed content terms: the recall half of the token overlap
    that SQuAD scores answers with (Rajpurkar et al. 2016, section 6.1), taken against the question because
    production has no gold answer.
    """
    metric = Metric.ANSWER_RELEVANCE
    reason = subject.reason_without_answer()
    if reason is not None:
        return Score.missing(metric, ANSWER_RELEVANCE_VERSION, reason)
    wanted = frozenset(content_terms(subject.question))
    if not wanted:
        return Score.missing(metric, ANSWER_RELEVANCE_VERSION, Unmeasured.NO_QUESTION)
    return Score.measured(metric, ANSWER_RELEVANCE_VERSION, term_recall(wanted, subject.answer))


def score_context_relevance(subject: Subject) -> Score:
    """How much of the question the chunks take up, the best ranks counting most, 0 to 1.

    The mean over chunks of each chunk's recall of the question's terms, weighted by the logarithmic rank
    discount `1 / log2(rank + 1)` (Järvelin and Kekäläinen 2002, as in nDCG) and normalised by its sum.
    """
    metric = Metric.CONTEXT_RELEVANCE
    reason = subject.reason_without_chunks()
    if reason is not None:
        return Score.missing(metric, CONTEXT_RELEVANCE_VERSION, reason)
    wanted = frozenset(content_terms(subject.question))
    if not wanted:
        return Score.missing(metric, CONTEXT_RELEVANCE_VERSION, Unmeasured.NO_QUESTION)
    gained, possible = 0.0, 0.0
    for rank, text in enumerate(subject.ranked_texts(), start=1):
        discount = 1 / math.log2(rank + 1)
        gained += discount * term_recall(wanted, text)
        possible += discount
    return Score.measured(metric, CONTEXT_RELEVANCE_VERSION, gained / possible)


def term_recall(wanted: frozenset[str], text: str) -> float:
    """The share of `wanted` (not empty) that occurs in `text`."""
    return len(wanted.intersection(content_terms(text))) / len(wanted)
