"""What stands beside the stream: leaving out copies, and times as people write them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.empty_pb2 import Empty

from binnacle.events.v1.feedback_recorded_pb2 import FeedbackRecorded
from binnacle_client.events import RecentEvents, open_events, parse_time
from servicekit.errors import BackendUnavailable, InvalidRequest
from servicekit.events.topics import TOPICS, message_class

_NOW = datetime(2025, 6, 1, 14, tzinfo=UTC)


@dataclass(frozen=True)
class _Named:
    identity: tuple[str, str]


def test_a_copy_is_known_within_the_window() -> None:
    """An event is known once added, by source and id; past the capacity the one longest ago is forgotten."""
    recent = RecentEvents(capacity=2)
    first, second, third = (_Named(("gateway", name)) for name in "abc")
    recent.add(first)
    recent.add(second)
    recent.add(first)  # seen again: now the younger one
    recent.add(third)
    assert [event in recent for event in (first, second, third)] == [True, False, True]
    assert _Named(("retriever", "a")) not in recent
    assert len(recent) == 2


def test_a_window_holds_something() -> None:
    """A capacity of nothing is refused."""
    with pytest.raises(InvalidRequest, match="at least 1"):
        RecentEvents(capacity=0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", _NOW - timedelta(seconds=90)),
        ("15m", _NOW - timedelta(minutes=15)),
        ("2h", _NOW - timedelta(hours=2)),
        ("3d", _NOW - timedelta(days=3)),
        ("2025-06-01T12:30Z", datetime(2025, 6, 1, 12, 30, tzinfo=UTC)),
        ("2025-06-01T12:30:00+02:00", datetime(2025, 6, 1, 10, 30, tzinfo=UTC)),
    ],
)
def test_times_as_people_write_them(text: str, expected: datetime) -> None:
    """A span before now, or a time of the calendar."""
    assert parse_time(text, now=_NOW) == expected


@pytest.mark.parametrize("text", ["", "h", "2 h", "-2h", "1.5h", "2w", "yesterday", "9999999d", "2025-13-01"])
def test_other_times_are_refused_with_examples(text: str) -> None:
    """The message says what would do."""
    with pytest.raises(InvalidRequest, match="15m"):
        parse_time(text, now=_NOW)


async def test_a_message_without_a_topic_is_refused() -> None:
    """The message names those that have one."""
    with pytest.raises(InvalidRequest, match=r"no topic carries google\.protobuf\.Empty.*InteractionCompleted"):
        async with open_events(Empty, servers="127.0.0.1:1"):
            pass


async def test_a_start_without_a_zone_is_refused() -> None:
    """A naive time could be anybody's."""
    with pytest.raises(InvalidRequest, match="time zone"):
        async with open_events(FeedbackRecorded, servers="127.0.0.1:1", start=datetime(2025, 6, 1)):  # noqa: DTZ001
            pass


async def test_what_open_events_decides_is_not_overridden() -> None:
    """Settings on which the promise rests cannot be given."""
    settings = {"enable_auto_commit": True}
    with pytest.raises(InvalidRequest, match="enable_auto_commit"):
        async with open_events(FeedbackRecorded, servers="127.0.0.1:1", client_settings=settings):
            pass


async def test_no_kafka_is_said_at_once() -> None:
    """Opening fails when nothing listens there."""
    with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:1"):
        async with open_events(message_class(next(iter(TOPICS))), servers="127.0.0.1:1"):
            pass
