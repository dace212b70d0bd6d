"""Records what somebody thinks of an answer: verified by signature alone, redacted, acknowledged.

Called by `server.py`. A genuine request id is accepted at once, because nothing is looked up.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from uuid_utils.compat import uuid7

from servicekit.domain.ids import RequestIds
from servicekit.domain.verdict import Action
from servicekit.errors import InvalidRequest, NotFound
from servicekit.ports.clock import Clock
from servicekit.ports.event_bus import OutgoingEvent
from servicekit.rpc.deadline import Budget
from services.gateway.backends import CheckContext, Guard
from services.gateway.publishing import Publishing, not_recorded
from services.gateway.question import Asker
from services.gateway.validation import check_id, check_length, check_text, shown

MAX_CORRECTION_CHARS = 8_192
MAX_COMMENT_CHARS = 2_048
MAX_LABEL_CHARS = 64
MIN_RATING, MAX_RATING = 1, 5
_CHECK_SHARE = 0.5


class FeedbackKind(StrEnum):
    """What kind of feedback it is."""

    RATING = "rating"
    THUMBS = "thumbs"
    CORRECTION = "correction"
    LABEL = "label"


@dataclass(frozen=True, slots=True)
class Feedback:
    """One feedback; the value that belongs to `kind` is set, the others are None."""

    request_id: str
    kind: FeedbackKind | None
    rating: int | None = None
    thumbs_up: bool | None = None
    correction: str | None = None
    label: str | None = None
    feedback_id: str = ""
    author: str = ""
    supersedes: str = ""
    comment: str = ""


@dataclass(frozen=True, slots=True)
class RecordedFeedback:
    """A feedback that is safe."""

    feedback: Feedback
    tenant: str
    record_time: datetime


@dataclass(frozen=True, slots=True)
class FeedbackDesk:
    """Takes feedback; `event_of` encodes it (`events.py`)."""

    ids: RequestIds
    guard: Guard
    publishing: Publishing
    event_of: Callable[[RecordedFeedback], OutgoingEvent]
    clock: Clock

    async def record(self, feedback: Feedback, *, asker: Asker, budget: Budget) -> RecordedFeedback:
        """Publish the feedback and wait for its acknowledgement; the same feedback id counts once.

        Raises:
            InvalidRequest: a bound is broken, or a text that policy blocks.
            NotFound: the request id was not signed for this tenant.
            BackendUnavailable: the texts could not be judged, or the record was not acknowledged.
        """
        validate_feedback(feedback)
        if not self.ids.verify(feedback.request_id, asker.tenant):
            raise NotFound(
                f"no request {shown(feedback.request_id)} of this tenant; send the request_id of an answer unchanged",
                reason="REQUEST_NOT_FOUND",
            )
        feedback_id = feedback.feedback_id or str(uuid7())
        redacted = await self._redacted(replace(feedback, feedback_id=feedback_id), budget)
        recorded = RecordedFeedback(redacted, asker.tenant, self.clock.now())
        publication = self.publishing.begin(self.event_of(recorded))
        try:
            async with asyncio.timeout(budget.timeout_s()):
                await asyncio.shield(publication)
        except TimeoutError as error:
            raise not_recorded() from error
        return recorded

    async def _redacted(self, feedback: Feedback, budget: Budget) -> Feedback:
        """Its texts as the guard leaves them, a label too: whatever can be typed can hold an address."""
        return replace(
            feedback,
            correction=await self._judged("correction", feedback.correction, feedback, budget),
            label=await self._judged("label", feedback.label, feedback, budget),
            comment=await self._judged("comment", feedback.comment, feedback, budget) or "",
        )

    async def _judged(self, field: str, text: str | None, feedback: Feedback, budget: Budget) -> str | None:
        if not text:
            return text
        judgement = await self.guard.check_input(
            text,
            context=CheckContext(request_id=feedback.request_id),
            timeout_s=budget.remaining_s() * _CHECK_SHARE,
        )
        if judgement.action is Action.BLOCK:
            raise InvalidRequest(
                f"{field} is blocked by the tenant's policy; reword or leave it out", field=field, reason="BLOCKED"
            )
        return judgement.text


def validate_feedback(feedback: Feedback) -> None:
    """Return if every field is within its bounds and the value is the one that `kind` names.

    Raises:
        InvalidRequest: for the first field that is not.
    """
    check_text("request_id", feedback.request_id, max_chars=128)
    for name in ("feedback_id", "author", "supersedes"):
        check_id(name, getattr(feedback, name))
    check_length("comment", feedback.comment, max_chars=MAX_COMMENT_CHARS)
    if feedback.kind is None:
        raise InvalidRequest("kind must be RATING, THUMBS, CORRECTION or LABEL, got none", field="kind")
    _check_value(feedback, feedback.kind)


def _check_value(feedback: Feedback, kind: FeedbackKind) -> None:
    field = {FeedbackKind.THUMBS: "thumbs_up"}.get(kind, str(kind))
    if getattr(feedback, field) is None:
        given = [name for name in ("rating", "thumbs_up", "correction", "label") if getattr(feedback, name) is not None]
        raise InvalidRequest(
            f"{field} must be set for kind {kind.upper()}, got {given[0] if given else 'no value'}", field=field
        )
    if feedback.rating is not None and not MIN_RATING <= feedback.rating <= MAX_RATING:
        raise InvalidRequest(f"rating must be {MIN_RATING} to {MAX_RATING}, got {feedback.rating}", field="rating")
    if feedback.correction is not None:
        check_text("correction", feedback.correction, max_chars=MAX_CORRECTION_CHARS)
    if feedback.label is not None:
        check_text("label", feedback.label, max_chars=MAX_LABEL_CHARS)
