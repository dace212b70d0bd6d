"""JSON Schema (draft 7) of events in protobuf's JSON, as `binnacle tail --json` and `EventSchema.decode` give them.

Pure; part of the AsyncAPI document. Mapping: https://protobuf.dev/programming-guides/json/
"""

from collections.abc import Mapping
from typing import Any

from servicekit.events.docs.catalogue import Catalogue, EnumDoc, FieldDoc, MessageDoc

Schema = dict[str, Any]

_SCALARS: Mapping[str, Schema] = {
    "string": {"type": "string"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
    "bool": {"type": "boolean"},
    "int32": {"type": "integer", "format": "int32"},
    "uint32": {"type": "integer", "minimum": 0},
    "int64": {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"},
    "uint64": {"type": "string", "format": "uint64", "pattern": "^[0-9]+$"},
    "float": {"type": "number", "format": "float"},
    "double": {"type": "number", "format": "double"},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?s$"},
    "google.protobuf.Struct": {"type": "object"},
}


def schemas_for(catalogue: Catalogue, full_name: str) -> dict[str, Schema]:
    """The schema of a message and of all that it holds, by full name; they refer to each other in `components`."""
    return {name: _schema(catalogue, name) for name in catalogue.reachable(full_name)}


def reference(full_name: str) -> Schema:
    """A reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{full_name}"}


def _schema(catalogue: Catalogue, name: str) -> Schema:
    if name in catalogue.enums:
        return _enum_schema(catalogue.enums[name])
    return _message_schema(catalogue.messages[name])


def _message_schema(message: MessageDoc) -> Schema:
    return {
        "type": "object",
        "description": message.comment,
        "properties": {field.name: _field_schema(field) for field in message.fields},
    }


def _field_schema(field: FieldDoc) -> Schema:
    one = dict(_SCALARS[field.type]) if field.type in _SCALARS else reference(field.type)
    about: Schema = {"description": field.comment, "x-protobuf-number": field.number}
    if field.map_key is not None:
        return {"type": "object", "additionalProperties": one, **about}
    if field.repeated:
        return {"type": "array", "items": one, **about}
    # What stands beside a bare $ref is ignored.
    return {"allOf": [one], **about} if "$ref" in one else {**one, **about}


def _enum_schema(enum: EnumDoc) -> Schema:
    told = "\n".join(f"- `{value.name}` ({value.number}): {value.comment}" for value in enum.values)
    return {
        "type": "string",
        "description": f"{enum.comment}\n{told}",
        "examples": [value.name for value in enum.values],
        "x-note": "Open: a later version may add values; one that a reader does not know comes as its number.",
    }
