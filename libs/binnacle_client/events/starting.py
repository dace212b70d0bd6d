"""Where reading starts, and the offsets that this means: the oldest record, only new ones, or a time.

Used by `reader.py`; `parse_time` by the command.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never

from aiokafka import AIOKafkaConsumer, TopicPartition

from servicekit.errors import InvalidRequest, NotReady


class StartAt(StrEnum):
    """Where to begin in partitions in which the group has not committed anything yet."""

    EARLIEST = "earliest"
    LATEST = "latest"


Start = StartAt | datetime


def check_start(start: Start) -> None:
    """Refuse a time without a zone.

    Raises:
        InvalidRequest: the time is naive.
    """
    if isinstance(start, datetime) and start.tzinfo is None:
        raise InvalidRequest(
            f"start must say its time zone, such as datetime.now(UTC), got {start.isoformat()}", field="start"
        )


async def starting_offsets(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], *, start: Start
) -> dict[TopicPartition, int]:
    """The offset for each partition; a time means the first record sent at it or later, or the end.

    Raises:
        NotReady: the broker cannot look up times.
        KafkaError: no answer.
    """
    if not partitions:
        return {}
    match start:
        case StartAt.EARLIEST:
            return dict(await consumer.beginning_offsets(partitions))
        case StartAt.LATEST:
            return dict(await consumer.end_offsets(partitions))
        case datetime():
            return await _offsets_at(consumer, partitions, start)
        case _:
            assert_never(start)


async def _offsets_at(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], time: datetime
) -> dict[TopicPartition, int]:
    ends = await consumer.end_offsets(partitions)
    timestamp_ms = max(0, int(time.timestamp() * 1000))
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, timestamp_ms))
    if not any(found.values()):
        await _require_time_lookup(consumer, partitions)
    return {one: at.offset if (at := found.get(one)) else ends[one] for one in partitions}


async def _require_time_lookup(consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition]) -> None:
    """The embedded broker finds nothing at any time, and does not say that it never looked.

    Raises:
        NotReady: there are records, and none of them since 1970.
    """
    begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
    filled = [one for one in partitions if begins[one] < ends[one]]
    if filled and not any((await consumer.offsets_for_times(dict.fromkeys(filled, 0))).values()):
        raise NotReady(
            "this Kafka cannot look up offsets by time, as the embedded broker cannot: read from the beginning, or "
            "run the stack on a real Kafka",
            reason="NO_TIME_LOOKUP",
        )


def parse_time(text: str, *, now: datetime) -> datetime:
    """A time as people write it: `90s`, `15m`, `2h`, `3d` ago, or ISO 8601 (`2025-06-01T14:00Z`; else local time).

    Raises:
        InvalidRequest: it is neither.
    """
    number, unit = text[:-1], text[-1:]
    if number.isdecimal() and len(number) <= _MAX_DIGITS and unit in _UNITS:
        return now - int(number) * _UNITS[unit]
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as exc:
        raise InvalidRequest(
            f"since must be a time (2025-06-01T14:00Z) or a span (90s, 15m, 2h, 3d), got {text!r}", field="since"
        ) from exc


_MAX_DIGITS = 6
_UNITS = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
