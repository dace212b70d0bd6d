"""What goes to the dead-letter topic, and back: the original bytes and headers, and headers that say why.

Pure; sent by the event-bus adapters and by the sink of analytics, read by `binnacle dlq`.

A dead letter has the key, the value and the headers of its record, in their order, and behind them the `dlq-` headers
of `Burial`, of which `dlq-headers` counts those before; so that even a record that came with `dlq-` headers of its own
is got back exactly. A replay puts the dead letter, `dlq-replays` raised by one, on the group's replay topic, where
`restore` makes it the record that it was, at the place where it was. Dead letters are at-least-once: a consumer that
dies between burying and committing buries again.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from servicekit.domain.envelope import ReceivedEvent
from servicekit.events.codec import decode_headers
from servicekit.events.topics import TOPICS, dead_letter_topic
from servicekit.ports.event_bus import RejectedEvent

PREFIX = "dlq-"
CONTENT_TYPE = "application/protobuf"
# What is no dead letter on a replay topic: somebody else put it there, and no group buries it.
REPLAY_STAGE = "replay"
_MAX_ERROR_CHARS = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"[0-9]{1,18}")

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a replayed record stood on its own topic, and since when it fails; `replays` counts this one too."""

    topic: str
    partition: int
    offset: int
    time: datetime
    first_failure_time: datetime
    replays: int


@dataclass(frozen=True, slots=True)
class Record:
    """One record as a broker gave it, nothing parsed.

    `topic`, `partition` and `offset` say where it was fetched, and so what to commit; a replayed one has an `origin`.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    time: datetime
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record to put on `topic`: `key` and `value` as they were, `headers` with the reason added."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    record: Record


@dataclass(frozen=True, slots=True)
class Burial:
    """What the headers of a dead letter say. `schema` is the full name of the message that its topic carries."""

    error_class: str
    error: str
    stage: str
    schema: str
    content_type: str
    group: str
    origin: Origin


def record_time(timestamp_ms: int) -> datetime:
    """A record's time, which its producer states as it likes; one that no calendar has is the epoch."""
    try:
        return _EPOCH + timedelta(milliseconds=max(0, timestamp_ms))
    except OverflowError:
        return _EPOCH


def time_ms(time: datetime) -> int:
    """The reverse of `record_time`."""
    return (time - _EPOCH) // timedelta(milliseconds=1)


def parse_record(record: Record) -> ReceivedEvent:
    """The event in a record; a replayed one is where it first was.

    Raises:
        RejectedEvent: stage `envelope`, if its headers are not ours or its key is not UTF-8.
    """
    envelope = decode_headers(record.headers)
    try:
        key = (record.key or b"").decode()
    except UnicodeDecodeError as exc:
        raise RejectedEvent(f"the key is not UTF-8: {record.key!r}", stage="envelope") from exc
    place = record.origin or record
    return ReceivedEvent(
        envelope=envelope,
        topic=place.topic,
        partition=place.partition,
        offset=place.offset,
        key=key,
        payload=record.value or b"",
        time=place.time,
        headers=tuple((name, value or b"") for name, value in record.headers),
    )


def bury(record: Record, rejection: RejectedEvent, *, group: str, now: datetime) -> DeadLetter:
    """The dead letter for a record that `group` rejects `now`."""
    cause = rejection.__cause__ or rejection
    origin = record.origin or Origin(record.topic, record.partition, record.offset, record.time, now, 0)
    spec = TOPICS.get(origin.topic)
    reasons = {
        "headers": str(len(record.headers)),
        "error-class": type(cause).__name__,
        "error": str(rejection)[:_MAX_ERROR_CHARS],
        "stage": rejection.stage,
        "schema": spec.message if spec else "",
        "content-type": CONTENT_TYPE,
        "topic": origin.topic,
        "partition": str(origin.partition),
        "offset": str(origin.offset),
        "record-time-ms": str(time_ms(origin.time)),
        "group": group,
        "first-failure-time-ms": str(time_ms(origin.first_failure_time)),
        "replays": str(origin.replays),
    }
    return DeadLetter(
        topic=dead_letter_topic(origin.topic, group),
        key=record.key,
        value=record.value,
        headers=(*record.headers, *((PREFIX + name, value.encode()) for name, value in reasons.items())),
        record=record,
    )


def read_burial(headers: Sequence[tuple[str, bytes | None]]) -> tuple[Burial, Headers]:
    """Why it was buried, and the headers that the record had.

    Raises:
        RejectedEvent: stage `replay`, if these are no headers of a dead letter.
    """
    said = {name.removeprefix(PREFIX): value for name, value in headers if name.startswith(PREFIX)}
    origin = Origin(
        topic=_text(said, "topic"),
        partition=_number(said, "partition"),
        offset=_number(said, "offset"),
        time=record_time(_number(said, "record-time-ms")),
        first_failure_time=record_time(_number(said, "first-failure-time-ms")),
        replays=_number(said, "replays"),
    )
    burial = Burial(
        error_class=_text(said, "error-class"),
        error=_text(said, "error"),
        stage=_text(said, "stage"),
        schema=_text(said, "schema"),
        content_type=_text(said, "content-type"),
        group=_text(said, "group"),
        origin=origin,
    )
    return burial, tuple(headers)[: _number(said, "headers")]


def replay_headers(headers: Sequence[tuple[str, bytes | None]]) -> Headers:
    """The headers with which a dead letter goes back: the same, one replay more.

    Raises:
        RejectedEvent: stage `replay`, as `read_burial`.
    """
    burial, _ = read_burial(headers)
    last = max(place for place, (name, _value) in enumerate(headers) if name == f"{PREFIX}replays")
    raised = f"{PREFIX}replays", str(burial.origin.replays + 1).encode()
    return (*headers[:last], raised, *headers[last + 1 :])


def restore(record: Record, *, topic: str, group: str) -> Record:
    """The record of `topic` that was put on the replay topic of `group`: its own headers, and its origin.

    Raises:
        RejectedEvent: stage `replay`, if it is no dead letter of that topic and group.
    """
    burial, headers = read_burial(record.headers)
    if (burial.origin.topic, burial.group) != (topic, group):
        raise RejectedEvent(
            f"a dead letter of {burial.origin.topic} in {burial.group} came as a replay of {topic} in {group}",
            stage=REPLAY_STAGE,
        )
    return replace(record, headers=headers, origin=burial.origin)


def _text(said: dict[str, bytes | None], name: str) -> str:
    value = said.get(name)
    if value is None:
        raise RejectedEvent(f"no dead letter: it lacks the header {PREFIX}{name}", stage=REPLAY_STAGE)
    return value.decode("utf-8", "replace")


def _number(said: dict[str, bytes | None], name: str) -> int:
    text = _text(said, name)
    if not _NUMBER.fullmatch(text):
        raise RejectedEvent(f"no dead letter: {PREFIX}{name} must be a whole number, got {text!r}", stage=REPLAY_STAGE)
    return int(text)
