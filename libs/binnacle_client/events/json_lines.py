"""What a consumer is handed as one JSON object a line. Pure; printed by `binnacle tail --json`."""

import base64

from google.protobuf.message import Message

from binnacle_client.events.event import Event, Place, Rejected
from binnacle_client.events.schema import Json, to_json


def event_line(event: Event[Message]) -> Json:
    """Place, key, time, envelope and value; the value of a tombstone is null."""
    envelope = event.envelope
    return {
        **_place(event.place),
        "time": event.time.isoformat(timespec="milliseconds"),
        "key": event.key,
        "envelope": {
            "id": envelope.id,
            "source": envelope.source,
            "type": envelope.type,
            "tenant": envelope.tenant,
            "producer": envelope.producer,
            "sequence": envelope.sequence,
            "traceparent": envelope.traceparent,
        },
        "value": None if event.tombstone else to_json(event.payload),
    }


def rejected_line(rejected: Rejected) -> Json:
    """Place, time, why it is no event, and key, headers and value as they were, in Base64."""
    record = rejected.record
    return {
        **_place(rejected.place),
        "time": record.time.isoformat(timespec="milliseconds"),
        "rejected": {"stage": rejected.stage, "reason": rejected.reason},
        "key_base64": _base64(record.key),
        "headers_base64": {name: _base64(value) for name, value in record.headers},
        "value_base64": _base64(record.value),
    }


def _place(place: Place) -> Json:
    return {"topic": place.topic, "partition": place.partition, "offset": place.offset}


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()
