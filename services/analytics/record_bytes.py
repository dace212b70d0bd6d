"""Turns a Kafka record into a row of ClickHouse's Protobuf format without decoding its message.

Pure; used by the sink for every record, so its inner path is short.

A row is the record's own bytes with the envelope appended as further fields of the same message, and the length
in front. Their numbers are beyond any that the protos use. The topic comes first and the id last: a message
that is cut off swallows what follows it, and the table refuses a row without its topic or its id.
"""

import re
import struct
from collections.abc import Sequence
from dataclasses import replace

from aiokafka import ConsumerRecord

from servicekit.events.codec import MAX_HEADER_BYTES, MAX_SEQUENCE
from servicekit.events.dead_letters import Origin, Record, parse_record, record_time, restore, time_ms
from servicekit.ports.event_bus import RejectedEvent

_TOPIC, _TENANT, _SOURCE, _PRODUCER, _PARTITION, _OFFSET, _SEQUENCE, _TIME, _ID = range(50001, 50010)
ENVELOPE_FIELDS = (
    f"string kafka_topic = {_TOPIC};",
    f"string tenant = {_TENANT};",
    f"string event_source = {_SOURCE};",
    f"string event_producer = {_PRODUCER};",
    f"sfixed64 kafka_partition = {_PARTITION};",
    f"sfixed64 kafka_offset = {_OFFSET};",
    f"sfixed64 event_sequence = {_SEQUENCE};",
    f"sfixed64 event_time_ms = {_TIME};",
    f"string raw_event_id = {_ID};",
)
_FIXED64, _LENGTH_DELIMITED = 1, 2
_MAX_CACHED = 4096
# What needs no closer look; any other identifier goes through every check.
_PLAIN_ID = re.compile(rb"[!-~]{1,%d}" % MAX_HEADER_BYTES)


def varint(number: int) -> bytes:
    """A non-negative number as protobuf writes it."""
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004  # seven bits a byte
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _tag(field: int, wire_type: int) -> bytes:
    return varint(field << 3 | wire_type)


def _text(field: int, value: bytes) -> bytes:
    return _tag(field, _LENGTH_DELIMITED) + varint(len(value)) + value


# Offset, sequence and time with their tags, then the identifier's tag and its length, which is one byte mostly.
_NUMBERS = struct.Struct("<3sq3sq3sq3s")
_NUMBERS_AND_LENGTH = struct.Struct("<3sq3sq3sq3sB")
_OFFSET_TAG, _SEQUENCE_TAG, _TIME_TAG = (_tag(field, _FIXED64) for field in (_OFFSET, _SEQUENCE, _TIME))
_ID_TAG = _tag(_ID, _LENGTH_DELIMITED)
_ONE_BYTE, _TWO_BYTES = 0x80, 0x4000

# The pieces of a row, to be joined: the record's own bytes are not copied for each.
Row = tuple[bytes, ...]
ConstantHeaders = tuple[bytes | None, ...]


class RowEncoder:
    """Encodes the records of one topic; remembers the part of the envelope that producers repeat."""

    def __init__(self, topic: str, *, message_name: str) -> None:
        self._topic = topic.encode()
        self._message_name = message_name
        self._constant: dict[tuple[int, ConstantHeaders], bytes] = {}

    def encode(self, record: ConsumerRecord[bytes, bytes]) -> Row:
        """The row of a record; empty for a tombstone, which no table holds.

        Raises:
            RejectedEvent: stage `envelope` or `decode`: the record can never be a row.
        """
        value = record.value
        if value is None:
            return ()
        header = dict(record.headers).get
        identifier, sequence = header("ce_id"), header("ce_sequence")
        repeated = (
            header("ce_specversion"),
            header("ce_source"),
            header("ce_type"),
            header("ce_tenant"),
            header("ce_producer"),
        )
        constant = self._constant.get((record.partition, repeated))
        if constant is None or not identifier or not _PLAIN_ID.fullmatch(identifier) or not _is_sequence(sequence):
            constant = self._checked(record, repeated)
            assert identifier is not None
        numbers = _numbers(record.offset, int(sequence or 0), record.timestamp, len(identifier))
        size = len(value) + len(constant) + len(numbers) + len(identifier)
        length = bytes((size & 0x7F | 0x80, size >> 7)) if _ONE_BYTE <= size < _TWO_BYTES else varint(size)
        return length, value, constant, numbers, identifier

    def _checked(self, record: ConsumerRecord[bytes, bytes], repeated: ConstantHeaders) -> bytes:
        """The slow path, with every check of the codec; its result is kept for records alike."""
        event = parse_record(original(record))
        envelope = event.envelope
        if envelope.type != self._message_name:
            raise RejectedEvent(f"ce_type must be {self._message_name!r}, got {envelope.type!r}", stage="decode")
        constant = (
            _text(_TOPIC, self._topic)
            + _text(_TENANT, envelope.tenant.encode())
            + _text(_SOURCE, envelope.source.encode())
            + _text(_PRODUCER, envelope.producer.encode())
            + _tag(_PARTITION, _FIXED64)
            + struct.pack("<q", record.partition)
        )
        if len(self._constant) >= _MAX_CACHED:
            self._constant.clear()
        self._constant[record.partition, repeated] = constant
        return constant


def _numbers(offset: int, sequence: int, time_ms: int, id_bytes: int) -> bytes:
    if id_bytes < _ONE_BYTE:
        return _NUMBERS_AND_LENGTH.pack(
            _OFFSET_TAG, offset, _SEQUENCE_TAG, sequence, _TIME_TAG, time_ms, _ID_TAG, id_bytes
        )
    packed = _NUMBERS.pack(_OFFSET_TAG, offset, _SEQUENCE_TAG, sequence, _TIME_TAG, time_ms, _ID_TAG)
    return packed + varint(id_bytes)


def original(record: ConsumerRecord[bytes, bytes]) -> Record:
    """The record as dead letters and the codec know it."""
    headers: Sequence[tuple[str, bytes | None]] = record.headers
    return Record(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=record.value,
        headers=tuple(headers),
        time=record_time(record.timestamp),
    )


def restored(
    record: ConsumerRecord[bytes, bytes], *, topic: str, group: str
) -> tuple[ConsumerRecord[bytes, bytes], Origin]:
    """The record that was put on the replay topic of `group`, at the place and time where it first was.

    So its row has the identity, and its sequence the offset, that the first attempt would have given them: replayed
    twice it counts once.

    Raises:
        RejectedEvent: stage `replay`, if it is no dead letter of that topic and group.
    """
    was = restore(original(record), topic=topic, group=group)
    assert was.origin is not None
    return replace(
        record,
        topic=was.origin.topic,
        partition=was.origin.partition,
        offset=was.origin.offset,
        timestamp=time_ms(was.origin.time),
        headers=was.headers,
    ), was.origin


def _is_sequence(value: bytes | None) -> bool:
    return value is None or (value.isdigit() and int(value) <= MAX_SEQUENCE)
