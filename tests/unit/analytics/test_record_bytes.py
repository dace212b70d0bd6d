"""A record becomes a row without being decoded, and its envelope stands behind its own bytes."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from aiokafka import ConsumerRecord
from google.protobuf.internal import decoder, encoder
from hypothesis import given
from hypothesis import strategies as st

from binnacle.events.v1.feedback_recorded_pb2 import FeedbackRecorded
from servicekit.domain.envelope import Envelope
from servicekit.events.codec import encode_headers
from servicekit.events.topics import FEEDBACK_RECORDED, TOPICS
from servicekit.ports.event_bus import RejectedEvent
from services.analytics.record_bytes import RowEncoder, varint

_TYPE = TOPICS[FEEDBACK_RECORDED].message


def _record(
    value: bytes | None, *, envelope: Envelope | None = None, headers: Sequence[tuple[str, bytes]] | None = None
) -> ConsumerRecord[bytes, bytes]:
    envelope = envelope or Envelope(
        id="event-1", source="gateway", type=_TYPE, tenant="acme", producer="p-1", sequence=7
    )
    return ConsumerRecord(
        topic=FEEDBACK_RECORDED,
        partition=3,
        offset=41,
        timestamp=1_700_000_000_123,
        timestamp_type=0,
        key=b"k",
        value=value,
        checksum=None,
        serialized_key_size=1,
        serialized_value_size=len(value or b""),
        headers=encode_headers(envelope) if headers is None else headers,
    )


def _encoder() -> RowEncoder:
    return RowEncoder(FEEDBACK_RECORDED, message_name=_TYPE)


def _unframe(row: bytes) -> bytes:
    length, start = decoder._DecodeVarint(row, 0)
    assert len(row) - start == length
    return row[start:]


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_varint_agrees_with_protobuf(number: int) -> None:
    """Lengths and tags are written as protobuf writes them."""
    parts: list[bytes] = []
    encoder._EncodeVarint(parts.append, number)
    assert varint(number) == b"".join(parts)


@given(comment=st.text(), rating=st.integers(-(2**31), 2**31 - 1), event_id=st.text(min_size=1, max_size=40))
def test_a_row_is_the_message_with_more_fields(comment: str, rating: int, event_id: str) -> None:
    """Whoever knows only the message still reads it from the row."""
    if not event_id.isprintable():
        event_id = "id"
    message = FeedbackRecorded(feedback_id="f", comment=comment, rating=rating)
    envelope = Envelope(id=event_id, source="gateway", type=_TYPE, tenant="acme", producer="p", sequence=2**40)
    body = _unframe(b"".join(_encoder().encode(_record(message.SerializeToString(), envelope=envelope))))
    read = FeedbackRecorded.FromString(body)
    read.DiscardUnknownFields()
    assert read == message
    assert body.endswith(event_id.encode())


def test_a_remembered_envelope_gives_the_same_row() -> None:
    """The quick path writes what the checked path wrote."""
    rows = _encoder()
    record = _record(FeedbackRecorded(feedback_id="f").SerializeToString())
    assert rows.encode(record) == rows.encode(record) == _encoder().encode(record)


def test_a_tombstone_makes_no_row() -> None:
    """A compacted topic's tombstone only moves the offset on."""
    assert not _encoder().encode(_record(None))


def test_an_empty_message_is_a_row() -> None:
    """A message of only defaults has no bytes and is an event all the same."""
    assert _encoder().encode(_record(b""))


@pytest.mark.parametrize(
    ("change", "stage"),
    [
        ({"ce_id": None}, "envelope"),
        ({"ce_id": b""}, "envelope"),
        ({"ce_id": b"x" * 2000}, "envelope"),
        ({"ce_id": b"\xff"}, "envelope"),
        ({"ce_id": b"a\nb"}, "envelope"),
        ({"ce_tenant": b"\xff"}, "envelope"),
        ({"ce_sequence": b"-1"}, "envelope"),
        ({"ce_sequence": b"9" * 30}, "envelope"),
        ({"ce_specversion": b"2.0"}, "envelope"),
        ({"ce_type": b"other.Type"}, "decode"),
    ],
)
def test_a_bad_envelope_is_rejected_also_behind_a_good_one(change: dict[str, bytes | None], stage: str) -> None:
    """What was remembered of earlier records lets no bad one through."""
    rows = _encoder()
    good = _record(b"")
    rows.encode(good)
    headers = [(name, value) for name, value in {**dict(good.headers), **change}.items() if value is not None]
    with pytest.raises(RejectedEvent) as caught:
        rows.encode(_record(b"", headers=headers))
    assert caught.value.stage == stage


@pytest.mark.parametrize("timestamp_ms", [-1, 2**62, -(2**63)])
def test_a_time_that_no_calendar_has_stops_nothing(timestamp_ms: int) -> None:
    """A producer states the record's time as it likes; absurd, it is still a row."""
    assert _encoder().encode(replace(_record(b""), timestamp=timestamp_ms))


def test_an_event_without_a_sequence_is_a_row() -> None:
    """An upstream system that counts nothing leaves producer and sequence out."""
    envelope = Envelope(id="e", source="crm", type=_TYPE, tenant="acme", producer="", sequence=0)
    assert _encoder().encode(_record(b"", envelope=envelope))
