"""The AsyncAPI 3.0 document of Binnacle's topics, from the registry, the descriptors and the golden examples.

Pure; written by `__main__.py`. Specification: https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from servicekit.events.codec import MAX_HEADER_BYTES, SPECVERSION
from servicekit.events.docs.catalogue import Catalogue
from servicekit.events.docs.json_schema import reference, schemas_for
from servicekit.events.topics import TopicSpec, dead_letter_topic

_PROTOBUF = "application/vnd.google.protobuf;version=3"
HOW_TO_READ = (
    "Topics are at least once: a copy of an event may follow at once or much later. An event is known by `ce_source` "
    "and `ce_id`: deduplicate on both. Order holds within a key. The value is the protobuf message named in `ce_type`, "
    "one type a topic; fields are only ever added, and a reader keeps what it does not know."
)

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sources:
    """What the documents are made of: `protos` are texts by path below `protos/`, `examples` are JSON by message."""

    topics: Mapping[str, TopicSpec]
    catalogue: Catalogue
    protos: Mapping[str, str]
    examples: Mapping[str, Mapping[str, Any]]
    version: str


def document(sources: Sources) -> Document:
    """The whole document."""
    specs = sources.topics.values()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Binnacle events",
            "version": sources.version,
            "description": HOW_TO_READ,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/protobuf",
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "description": "`binnacle env` prints the local stack's as KAFKA_BOOTSTRAP_SERVERS.",
                "variables": {"bootstrap": {"default": "localhost:9092", "description": "Kafka's bootstrap server."}},
            }
        },
        "channels": {_message_name(spec): _channel(spec) for spec in specs},
        "operations": {f"{_verb(spec)}{_message_name(spec)}": _operation(spec) for spec in specs},
        "components": {
            "messages": {_message_name(spec): _message(spec, sources) for spec in specs},
            "schemas": {"Envelope": _envelope_schema(), **_payload_schemas(sources)},
        },
    }


def retention_text(spec: TopicSpec) -> str:
    """How long records are kept, for people."""
    if spec.retention is None:
        return "compacted: the last of each key, until its tombstone"
    return f"{spec.retention // timedelta(days=1)} days"


def example_headers(spec: TopicSpec) -> dict[str, str]:
    """The headers of an event of that topic, such as a producer of it sends."""
    source = spec.producers[0] if spec.producers else "control_plane"
    return {
        "ce_specversion": SPECVERSION,
        "ce_id": "01890a5d-ac96-774b-bcce-b302099a8057",
        "ce_source": source,
        "ce_type": spec.message,
        "ce_tenant": "acme",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "ce_producer": f"{source}-01890a5d",
        "ce_sequence": "42",
    }


def _message_name(spec: TopicSpec) -> str:
    return spec.message.rpartition(".")[2]


def _verb(spec: TopicSpec) -> str:
    """What Binnacle does: where nobody of it writes, it is to read one day."""
    return "send" if spec.producers else "receive"


def _channel(spec: TopicSpec) -> Document:
    name = _message_name(spec)
    settings: Document = {"cleanup.policy": ["compact" if spec.compacted else "delete"]}
    if spec.retention is not None:
        settings["retention.ms"] = spec.retention // timedelta(milliseconds=1)
    return {
        "address": spec.name,
        "title": name,
        "summary": spec.doc,
        "description": f"Key: {spec.key}. Kept: {retention_text(spec)}. A message has at most {spec.max_bytes} bytes.",
        "servers": [{"$ref": "#/servers/kafka"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "bindings": {"kafka": {"topic": spec.name, "partitions": spec.partitions, "topicConfiguration": settings}},
        "x-producers": list(spec.producers),
        "x-consumers": list(spec.consumers),
        "x-dead-letter-topics": [dead_letter_topic(spec.name, group) for group in spec.consumers],
    }


def _operation(spec: TopicSpec) -> Document:
    name = _message_name(spec)
    written = f"Written by {', '.join(spec.producers)}" if spec.producers else "Reserved: nobody writes it yet"
    read = f"read by {', '.join(spec.consumers)} and anyone" if spec.consumers else "read by anyone"
    return {
        "action": _verb(spec),
        "channel": {"$ref": f"#/channels/{name}"},
        "summary": f"{written}; {read}.",
        "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
    }


def _message(spec: TopicSpec, sources: Sources) -> Document:
    name = _message_name(spec)
    described = sources.catalogue.messages[spec.message]
    return {
        "name": spec.message,
        "title": name,
        "summary": spec.doc,
        "description": described.comment,
        "contentType": "application/protobuf",
        "headers": reference("Envelope"),
        "payload": {"schemaFormat": _PROTOBUF, "schema": sources.protos[described.file]},
        "bindings": {"kafka": {"key": {"type": "string", "description": f"The {spec.key}."}}},
        "examples": [
            {"name": name, "headers": example_headers(spec), "payload": dict(sources.examples[name])},
        ],
        "x-proto-file": described.file,
        "x-json-schema": reference(spec.message),
    }


def _payload_schemas(sources: Sources) -> Document:
    schemas: Document = {}
    for spec in sources.topics.values():
        schemas |= schemas_for(sources.catalogue, spec.message)
    return dict(sorted(schemas.items()))


def _envelope_schema() -> Document:
    text: Document = {"type": "string", "maxLength": MAX_HEADER_BYTES}
    return {
        "type": "object",
        "description": "CloudEvents in Kafka's binary mode, and Binnacle's count; UTF-8, printable, each at most once.",
        "required": ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_tenant"],
        "properties": {
            "ce_specversion": {"const": SPECVERSION, "description": "CloudEvents' version."},
            "ce_id": {**text, "description": "The event's identity within its source."},
            "ce_source": {**text, "description": "The service or system that wrote it."},
            "ce_type": {**text, "description": "The message's full name."},
            "ce_tenant": {**text, "description": "The tenant, from a credential."},
            "traceparent": {
                **text,
                "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
                "description": "W3C Trace Context of the request.",
            },
            "ce_producer": {**text, "description": "One start of one process; goes with `ce_sequence`."},
            "ce_sequence": {
                **text,
                "pattern": "^[1-9][0-9]{0,18}$",
                "description": "Counts from 1 per producer, topic and partition: a hole is a lost event.",
            },
        },
    }


def slug(full_name: str) -> str:
    """The anchor that GitHub gives a heading of that name."""
    return re.sub(r"[^a-z0-9_-]", "", full_name.lower())
