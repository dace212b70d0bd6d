"""Users' feedback as scores, so that it is charted and watched like any metric.

Pure; called by `evaluating.py`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

from servicekit.domain.score import Score, Unmeasured

FEEDBACK_VERSION = "normalised-1"
_LOWEST_RATING, _HIGHEST_RATING = 1.0, 5.0
_UUID_CHARS = 36
_UUID_TIME_ORDERED = 7
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)


class FeedbackKind(StrEnum):
    """What the user gave."""

    RATING = "rating"
    THUMBS = "thumbs"
    CORRECTION = "correction"
    LABEL = "label"


@dataclass(frozen=True, slots=True)
class Feedback:
    """One piece of feedback: `value` is 1..5 for a rating, -1 or 1 for thumbs, None where it has no number."""

    feedback_id: str
    request_id: str
    kind: FeedbackKind
    value: float | None
    record_time: datetime

    @property
    def interaction_time(self) -> datetime:
        """When the rated request was accepted, to the millisecond, as its id (a UUIDv7 in front) tells.

        The same for every repeat of the event, whatever this process has seen of the interaction. The time of
        the feedback itself stands in for an id that tells none.
        """
        try:
            identity = UUID(self.request_id[:_UUID_CHARS])
        except ValueError:
            return self.record_time
        if identity.version != _UUID_TIME_ORDERED:
            return self.record_time
        accepted_ms = identity.int >> 80
        return _EPOCH + timedelta(milliseconds=accepted_ms) if accepted_ms <= _LATEST_MS else self.record_time


def score_feedback(feedback: Feedback) -> Score:
    """`feedback.<kind>` from 0 (worst) to 1 (best).

    A rating is scaled linearly from 1..5, thumbs from -1..1; a correction says that the answer was wrong: 0.
    Labels have no order and stay unmeasured.
    """
    metric = f"feedback.{feedback.kind.value}"
    if feedback.kind is FeedbackKind.CORRECTION:
        return Score.measured(metric, FEEDBACK_VERSION, 0.0)
    if feedback.kind is FeedbackKind.LABEL or feedback.value is None:
        return Score.missing(metric, FEEDBACK_VERSION, Unmeasured.NOT_NUMERIC)
    if feedback.kind is FeedbackKind.RATING:
        low, high = _LOWEST_RATING, _HIGHEST_RATING
    else:
        low, high = -1.0, 1.0
    scaled = (feedback.value - low) / (high - low)
    return Score.measured(metric, FEEDBACK_VERSION, min(1.0, max(0.0, scaled)))
