"""Feedback: verified by signature, redacted, acknowledged, counted once."""

from dataclasses import replace
from typing import Any

import pytest

from binnacle.events.v1 import feedback_recorded_pb2 as pb
from servicekit.domain.ids import RequestIds
from servicekit.errors import BackendUnavailable, InvalidRequest, NotFound
from servicekit.ports.clock import SystemClock
from services.gateway.events import feedback_recorded
from services.gateway.feedback import Feedback, FeedbackDesk, FeedbackKind
from services.gateway.publishing import Publishing
from tests.unit.gateway.gateway_fakes import ASKER, REDACTED, SECRET, FakeBus, FakeGuard, budget

IDS = RequestIds([b"k" * 32])


def _desk(bus: FakeBus, guard: FakeGuard | None = None) -> FeedbackDesk:
    return FeedbackDesk(IDS, guard or FakeGuard(), Publishing(bus, ack_timeout_s=5), feedback_recorded, SystemClock())


def _thumbs(**changes: Any) -> Feedback:
    return replace(Feedback(IDS.new("acme"), FeedbackKind.THUMBS, thumbs_up=True), **changes)


async def test_genuine_feedback_is_published() -> None:
    """A rating for a genuine id becomes an event under that id."""
    bus = FakeBus()
    feedback = Feedback(IDS.new("acme"), FeedbackKind.RATING, rating=4, author="a", supersedes="f0")
    recorded = await _desk(bus).record(feedback, asker=ASKER, budget=budget())
    (event,) = bus.events
    assert event.key == feedback.request_id
    assert event.tenant == event.message.tenant_id == "acme"
    assert (event.message.kind, event.message.rating) == (pb.FEEDBACK_TYPE_RATING, 4)
    assert (event.message.author, event.message.supersedes) == ("a", "f0")
    assert event.message.feedback_id == recorded.feedback.feedback_id != ""


async def test_the_same_feedback_id_is_the_same_event() -> None:
    """A repeat of a feedback id has the same event id; another tenant's has not."""
    bus = FakeBus()
    feedback = _thumbs(feedback_id="mine")
    await _desk(bus).record(feedback, asker=ASKER, budget=budget())
    await _desk(bus).record(feedback, asker=ASKER, budget=budget())
    foreign = _thumbs(request_id=IDS.new("globex"), feedback_id="mine")
    await _desk(bus).record(foreign, asker=replace(ASKER, tenant="globex"), budget=budget())
    assert bus.events[0].id == bus.events[1].id != bus.events[2].id


@pytest.mark.parametrize("request_id", ["forged", IDS.new("globex"), RequestIds([b"z" * 32]).new("acme")])
async def test_forged_and_foreign_ids_are_not_found(request_id: str) -> None:
    """An id that was not signed for the tenant names nothing."""
    bus = FakeBus()
    with pytest.raises(NotFound):
        await _desk(bus).record(_thumbs(request_id=request_id), asker=ASKER, budget=budget())
    assert bus.events == []


async def test_texts_are_redacted() -> None:
    """Correction and comment are recorded as the guard leaves them."""
    bus = FakeBus()
    feedback = Feedback(IDS.new("acme"), FeedbackKind.CORRECTION, correction=f"Ask {SECRET}", comment=f"{SECRET}!")
    await _desk(bus).record(feedback, asker=ASKER, budget=budget())
    assert (bus.events[0].message.correction, bus.events[0].message.comment) == (f"Ask {REDACTED}", f"{REDACTED}!")


async def test_label_is_redacted() -> None:
    """A label is free text: what the guard finds in it does not reach the event."""
    bus = FakeBus()
    feedback = Feedback(IDS.new("acme"), FeedbackKind.LABEL, label=f"call {SECRET}")
    await _desk(bus).record(feedback, asker=ASKER, budget=budget())
    assert bus.events[0].message.label == f"call {REDACTED}"


async def test_blocked_text_is_refused() -> None:
    """A text that policy blocks is not recorded, and the field is named."""
    with pytest.raises(InvalidRequest) as caught:
        await _desk(FakeBus()).record(_thumbs(comment="BLOCK"), asker=ASKER, budget=budget())
    assert caught.value.field == "comment"


async def test_unjudged_text_is_not_recorded() -> None:
    """With the guardrail away a feedback with text fails, one without text does not."""

    async def hook(place: str) -> None:
        raise BackendUnavailable("away")

    bus = FakeBus()
    desk = _desk(bus, FakeGuard(hook=hook))
    with pytest.raises(BackendUnavailable):
        await desk.record(_thumbs(comment="hm"), asker=ASKER, budget=budget())
    await desk.record(_thumbs(), asker=ASKER, budget=budget())
    assert len(bus.events) == 1


async def test_no_acknowledgement_means_not_recorded() -> None:
    """Without the bus's acknowledgement the giver is told so."""

    async def hook(place: str) -> None:
        raise BackendUnavailable("no broker")

    with pytest.raises(BackendUnavailable) as caught:
        await _desk(FakeBus(hook=hook)).record(_thumbs(), asker=ASKER, budget=budget())
    assert caught.value.reason == "EVENT_NOT_RECORDED"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"kind": None}, "kind"),
        ({"kind": FeedbackKind.RATING}, "rating"),
        ({"kind": FeedbackKind.RATING, "rating": 0}, "rating"),
        ({"kind": FeedbackKind.RATING, "rating": 2**31 - 1}, "rating"),
        ({"kind": FeedbackKind.CORRECTION, "correction": "  "}, "correction"),
        ({"kind": FeedbackKind.CORRECTION, "correction": "x" * 8_193}, "correction"),
        ({"kind": FeedbackKind.LABEL, "label": "x" * 65}, "label"),
        ({"request_id": ""}, "request_id"),
        ({"feedback_id": "x" * 129}, "feedback_id"),
        ({"author": "a\nb"}, "author"),
        ({"comment": "x" * 2_049}, "comment"),
    ],
)
async def test_bounds_name_their_field(changes: dict[str, Any], field: str) -> None:
    """Every broken bound names its field."""
    with pytest.raises(InvalidRequest) as caught:
        await _desk(FakeBus()).record(_thumbs(**changes), asker=ASKER, budget=budget())
    assert caught.value.field == field
    assert field in caught.value.message
