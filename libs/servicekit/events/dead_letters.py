"""What goes to the dead-letter topic: the original bytes and headers, and headers that say why.

Pure; sent by the event-bus adapters. A replay strips the `dlq-` headers and feeds only that group.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from servicekit.domain.envelope import ReceivedEvent
from servicekit.events.codec import decode_headers
from servicekit.events.topics import dead_letter_topic
from servicekit.ports.event_bus import RejectedEvent

PREFIX = "dlq-"
_MAX_ERROR_CHARS = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Record:
    """One record as a broker gave it, nothing parsed."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    time: datetime


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record to put on `topic`: `key` and `value` as they were, `headers` with the reason added."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    record: Record


def record_time(timestamp_ms: int) -> datetime:
    """A record's time, which its producer states as it likes; one that no calendar has is the epoch."""
    try:
        return _EPOCH + timedelta(milliseconds=max(0, timestamp_ms))
    except OverflowError:
        return _EPOCH


def parse_record(record: Record) -> ReceivedEvent:
    """The event in a record.

    Raises:
        RejectedEvent: stage `envelope`, if its headers are not ours or its key is not UTF-8.
    """
    envelope = decode_headers(record.headers)
    try:
        key = (record.key or b"").decode()
    except UnicodeDecodeError as exc:
        raise RejectedEvent(f"the key is not UTF-8: {record.key!r}", stage="envelope") from exc
    return ReceivedEvent(
        envelope=envelope,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=key,
        payload=record.value or b"",
        time=record.time,
        headers=tuple((name, value or b"") for name, value in record.headers),
    )


def bury(record: Record, rejection: RejectedEvent, *, group: str) -> DeadLetter:
    """The dead letter for a record that `group` rejects."""
    cause = rejection.__cause__ or rejection
    reasons = {
        "error-class": type(cause).__name__,
        "error": str(rejection)[:_MAX_ERROR_CHARS],
        "stage": rejection.stage,
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "group": group,
    }
    return DeadLetter(
        topic=dead_letter_topic(record.topic, group),
        key=record.key,
        value=record.value,
        headers=(*original_headers(record.headers), *((PREFIX + k, v.encode()) for k, v in reasons.items())),
        record=record,
    )


def original_headers(
    headers: Iterable[tuple[str, bytes | None]],
) -> tuple[tuple[str, bytes | None], ...]:
    """A dead letter's headers as they were before it was one."""
    return tuple((name, value) for name, value in headers if not name.startswith(PREFIX))
