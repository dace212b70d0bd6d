"""CloudEvents in Kafka's binary mode: an envelope as headers and back, a payload as its protobuf message.

Pure; used by every event-bus adapter, and by handlers to decode what they were given.

What comes from outside is hostile until it parses: a header that is missing, repeated, too long, not UTF-8 or
absurd raises RejectedEvent(stage="envelope"), and the record goes to the dead-letter topic.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from servicekit.domain.envelope import Envelope, ReceivedEvent
from servicekit.ports.event_bus import RejectedEvent

SPECVERSION = "1.0"
MAX_HEADER_BYTES = 1024
MAX_SEQUENCE = 2**63 - 1

Headers = tuple[tuple[str, bytes], ...]

# W3C Trace Context, version 00; anything else is ignored, as the recommendation asks.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_SEQUENCE = re.compile(r"[1-9][0-9]{0,18}")
_REQUIRED = ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_tenant")
_KNOWN = frozenset({*_REQUIRED, "traceparent", "ce_producer", "ce_sequence"})

M = TypeVar("M", bound=Message)


def decode(event: ReceivedEvent, message_type: type[M]) -> M:
    """The event's payload as `message_type`.

    Raises:
        RejectedEvent: stage `decode`, if the event is of another type or its bytes do not parse.
    """
    expected = message_type.DESCRIPTOR.full_name
    if event.envelope.type != expected:
        raise RejectedEvent(f"ce_type must be {expected!r}, got {event.envelope.type!r}", stage="decode")
    try:
        return message_type.FromString(event.payload)
    except DecodeError as exc:
        raise RejectedEvent(f"the payload is no {expected}: {exc}", stage="decode") from exc


def read_time(stamp: Timestamp, *, field: str) -> datetime:
    """A time in a payload, aware in UTC.

    Raises:
        RejectedEvent: stage `validate`, if no calendar has it.
    """
    try:
        return stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as exc:
        raise RejectedEvent(
            f"{field} must be a time from 0001 to 9999 with 0..999999999 nanoseconds, got seconds={stamp.seconds} "
            f"nanos={stamp.nanos}",
            stage="validate",
        ) from exc


def encode_headers(envelope: Envelope) -> Headers:
    """The headers of an event; `traceparent`, `ce_producer` and `ce_sequence` only where they are known."""
    headers = [
        ("ce_specversion", envelope.specversion.encode()),
        ("ce_id", envelope.id.encode()),
        ("ce_source", envelope.source.encode()),
        ("ce_type", envelope.type.encode()),
        ("ce_tenant", envelope.tenant.encode()),
    ]
    if envelope.traceparent:
        headers.append(("traceparent", envelope.traceparent.encode()))
    if envelope.producer:
        headers.append(("ce_producer", envelope.producer.encode()))
        headers.append(("ce_sequence", str(envelope.sequence).encode()))
    return tuple(headers)


def decode_headers(headers: Iterable[tuple[str, bytes | None]]) -> Envelope:
    """The envelope in a record's headers.

    `ce_producer` and `ce_sequence` come together or not at all: an upstream system that keeps no sequences
    leaves them out, and its events have producer "" and sequence 0, which no completeness count includes.

    Raises:
        RejectedEvent: stage `envelope`.
    """
    values = _known_headers(headers)
    missing = [name for name in _REQUIRED if not values.get(name)]
    if missing:
        raise _rejected(f"the record lacks the headers {', '.join(missing)}")
    if values["ce_specversion"] != SPECVERSION:
        raise _rejected(f"ce_specversion must be {SPECVERSION!r}, got {values['ce_specversion']!r}")
    producer, sequence = _producer_sequence(values)
    traceparent = values.get("traceparent", "")
    return Envelope(
        id=values["ce_id"],
        source=values["ce_source"],
        type=values["ce_type"],
        tenant=values["ce_tenant"],
        producer=producer,
        sequence=sequence,
        traceparent=traceparent if _TRACEPARENT.fullmatch(traceparent) else "",
    )


def _known_headers(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in headers:
        if name not in _KNOWN:
            continue
        if name in values:
            raise _rejected(f"the header {name} stands more than once")
        values[name] = _text(name, value)
    return values


def _text(name: str, value: bytes | None) -> str:
    if value is None:
        return ""
    if len(value) > MAX_HEADER_BYTES:
        raise _rejected(f"the header {name} must have at most {MAX_HEADER_BYTES} bytes, got {len(value)}")
    try:
        text = value.decode()
    except UnicodeDecodeError as exc:
        raise _rejected(f"the header {name} is not UTF-8: {value[:40]!r}") from exc
    if not text.isprintable():
        raise _rejected(f"the header {name} holds unprintable characters: {text[:40]!r}")
    return text


def _producer_sequence(values: dict[str, str]) -> tuple[str, int]:
    producer, text = values.get("ce_producer", ""), values.get("ce_sequence", "")
    if not producer and not text:
        return "", 0
    if not producer:
        raise _rejected("ce_sequence stands without ce_producer")
    if not _SEQUENCE.fullmatch(text) or int(text) > MAX_SEQUENCE:
        raise _rejected(f"ce_sequence must be a whole number from 1 to {MAX_SEQUENCE}, got {text[:40]!r}")
    return producer, int(text)


def _rejected(message: str) -> RejectedEvent:
    return RejectedEvent(message, stage="envelope")
