"""A dead letter says why, and gives back exactly the record that it was."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.events.dead_letters import Record, bury, read_burial, replay_headers, restore
from servicekit.events.topics import DRIFT_ALERTED, FEEDBACK_RECORDED, TOPICS, parse_dead_letter_topic
from servicekit.ports.event_bus import RejectedEvent

_NOW = datetime(2026, 1, 2, tzinfo=UTC)
_HEADERS = st.lists(
    st.tuples(st.sampled_from(["ce_id", "dlq-offset", "dlq-headers", "x"]), st.none() | st.binary(max_size=8))
)


def _record(headers: tuple[tuple[str, bytes | None], ...] = (("ce_id", b"e"),)) -> Record:
    return Record(FEEDBACK_RECORDED, 3, 41, b"\xff", b"\x00\x01", headers, _NOW - timedelta(hours=1))


@given(headers=_HEADERS)
def test_a_record_comes_back_as_it_was(headers: list[tuple[str, bytes | None]]) -> None:
    """Whatever headers a producer sent, ours by name among them, key, value and headers are got back exactly."""
    record = _record(tuple(headers))
    letter = bury(record, RejectedEvent("no", stage="decode"), group="analytics", now=_NOW)
    on_replay = Record("replay", 0, 0, letter.key, letter.value, replay_headers(letter.headers), _NOW)
    back = restore(on_replay, topic=FEEDBACK_RECORDED, group="analytics")
    assert (back.key, back.value, back.headers) == (record.key, record.value, record.headers)
    assert back.origin is not None
    assert (back.origin.topic, back.origin.partition, back.origin.offset) == (FEEDBACK_RECORDED, 3, 41)
    assert (back.origin.time, back.origin.first_failure_time, back.origin.replays) == (record.time, _NOW, 1)


def test_a_dead_letter_says_why() -> None:
    """Error, stage, schema, place, group and times stand in typed headers."""
    rejection = RejectedEvent("too wide", stage="apply")
    rejection.__cause__ = ValueError("x")
    letter = bury(_record(), rejection, group="analytics", now=_NOW)
    burial, _headers = read_burial(letter.headers)
    assert (burial.error_class, burial.error, burial.stage) == ("ValueError", "too wide", "apply")
    assert (burial.schema, burial.content_type) == (TOPICS[FEEDBACK_RECORDED].message, "application/protobuf")
    assert (burial.group, burial.origin.replays, burial.origin.first_failure_time) == ("analytics", 0, _NOW)


@pytest.mark.parametrize("headers", [(), (("dlq-topic", b"t"), ("dlq-partition", b"-1")), (("dlq-topic", None),)])
def test_what_is_no_dead_letter_is_told(headers: tuple[tuple[str, bytes | None], ...]) -> None:
    """Headers that lack something, or hold no number, are refused by name."""
    with pytest.raises(RejectedEvent, match="no dead letter: "):
        read_burial(headers)


def test_a_replay_feeds_only_its_group() -> None:
    """A dead letter of another topic or group is refused."""
    letter = bury(_record(), RejectedEvent("no", stage="decode"), group="analytics", now=_NOW)
    record = Record("replay", 0, 0, letter.key, letter.value, letter.headers, _NOW)
    for topic, group in ((FEEDBACK_RECORDED, "evaluator"), (DRIFT_ALERTED, "analytics")):
        with pytest.raises(RejectedEvent, match="came as a replay of"):
            restore(record, topic=topic, group=group)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (f"{FEEDBACK_RECORDED}.analytics.dlq", (FEEDBACK_RECORDED, "analytics")),
        (f"{FEEDBACK_RECORDED}.analytics.replay", None),
        (FEEDBACK_RECORDED, None),
        (f"{FEEDBACK_RECORDED}.dlq", None),
        ("other.group.dlq", None),
    ],
)
def test_dead_letter_topics_are_known_by_name(name: str, found: tuple[str, str] | None) -> None:
    """Topic and group of a dead-letter topic; nothing else is one."""
    assert parse_dead_letter_topic(name) == found
