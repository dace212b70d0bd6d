"""Groundedness: how much of the answer its chunks support.

Pure; called by `scoring.py`. The judgement itself is `servicekit.domain.grounding`, shared with the guardrail.
"""

from servicekit.domain.grounding import GROUNDING_VERSION, ground
from servicekit.domain.score import Metric, Score, Unmeasured
from services.evaluator.refusal import declines
from services.evaluator.subject import Ending, Subject


def score_groundedness(subject: Subject) -> Score:
    """The answer's sentences' support by their best chunk, weighted by their words, 0 to 1.

    This is faithfulness as RAGAS defines it (Es et al. 2023, section 3: supported statements over all
    statements), with sentences for statements and shared words for the judge. A refusal states nothing that
    chunks could support, so it is unmeasured rather than 1 or 0.
    """
    metric = Metric.GROUNDEDNESS
    reason = subject.reason_without_answer()
    if reason is None and (subject.ending is Ending.REFUSED or declines(subject.answer)):
        reason = Unmeasured.REFUSED
    if reason is None:
        reason = subject.reason_without_chunks()
    if reason is not None:
        return Score.missing(metric, GROUNDING_VERSION, reason)
    return Score.measured(metric, GROUNDING_VERSION, ground(subject.answer, subject.ranked_texts()).score)
