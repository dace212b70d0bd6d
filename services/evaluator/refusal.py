"""Whether an answer declines to answer, and how long it is.

Pure; called by `scoring.py`.
"""

import re

from servicekit.domain.score import Metric, Score
from services.evaluator.subject import Ending, Subject

REFUSAL_VERSION = "phrases-1"
ANSWER_LENGTH_VERSION = "words-1"

# Openings by which models decline; anchored to the answer's first words so that a quoted refusal is none.
_OPENING_CHARACTERS = 240
_APOSTROPHE = "\u2019"
_DECLINES = re.compile(
    r"\b(?:i|we)(?:\s+am|'m|\s+are|'re)?\s+"
    r"(?:(?:sorry|afraid)\b|unable\s+to\b|not\s+able\s+to\b"
    r"|(?:cannot|can't|can\s+not|could\s+not|couldn't)\s+(?:answer|help|assist|find|provide|say|determine)\b"
    r"|(?:do\s+not|don't)\s+(?:know|have\s+(?:enough|any|the|that))\b)"
    r"|\b(?:no|not\s+enough|insufficient)\s+(?:relevant\s+)?(?:information|context|sources|documents?)\b"
    r"|\bthe\s+(?:context|sources?|documents?|passages?|chunks?)\s+(?:do(?:es)?\s+not|don't|doesn't)\s+"
    r"(?:contain|mention|say|answer|provide|cover)\b",
    re.IGNORECASE,
)


def score_refusal(subject: Subject) -> Score:
    """1 if the answer declines, else 0.

    An interaction recorded as refused counts as one whatever its words; otherwise the opening of the answer
    is matched against phrases, as refusal rates of open models are usually counted (the string match of
    Zou et al. 2023, "Universal and Transferable Adversarial Attacks", appendix B).
    """
    if subject.ending is Ending.REFUSED:
        return Score.measured(Metric.REFUSAL, REFUSAL_VERSION, 1.0)
    reason = subject.reason_without_answer()
    if reason is not None:
        return Score.missing(Metric.REFUSAL, REFUSAL_VERSION, reason)
    declined = declines(subject.answer)
    return Score.measured(Metric.REFUSAL, REFUSAL_VERSION, float(declined))


def score_answer_length(subject: Subject) -> Score:
    """Words of the answer, parted by blank space: a unit that no tokenizer's change can shift."""
    reason = subject.reason_without_answer()
    if reason is not None:
        return Score.missing(Metric.ANSWER_LENGTH, ANSWER_LENGTH_VERSION, reason)
    return Score.measured(Metric.ANSWER_LENGTH, ANSWER_LENGTH_VERSION, float(len(subject.answer.split())))


def declines(answer: str) -> bool:
    """True if the opening of the answer says that it will not or cannot answer."""
    return _DECLINES.search(answer[:_OPENING_CHARACTERS].replace(_APOSTROPHE, "'")) is not None
