"""The envelope of an event: CloudEvents attributes and Binnacle's producer sequence.

Pure; written and read by `servicekit.events.codec`, carried by every event-bus adapter.
"""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Envelope:
    """What travels beside an event's bytes.

    Identity of an event is (`source`, `id`): consumers deduplicate on it.
    `producer` names one process start; `sequence` counts from 1 per (producer, topic, partition).
    """

    id: str
    source: str
    type: str
    tenant: str
    producer: str
    sequence: int
    traceparent: str = ""
    specversion: str = "1.0"


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """One record as it was read: undecoded bytes and where they stood."""

    envelope: Envelope
    topic: str
    partition: int
    offset: int
    key: str
    payload: bytes
    time: datetime
    headers: tuple[tuple[str, bytes], ...] = ()
