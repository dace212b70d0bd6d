"""Writes a topic's message type as one self-contained proto schema that ClickHouse can read rows with.

Pure; used by the sink. ClickHouse resolves no imports in a schema given as a string, and fails a whole batch on
an enum number that it does not know: so every message is inlined, and enums become int32, their wire equal.
"""

from collections.abc import Iterable

from google.protobuf.descriptor import Descriptor, FieldDescriptor

ROOT = "Event"

_SCALARS = {
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_FLOAT: "float",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_FIXED64: "fixed64",
    FieldDescriptor.TYPE_FIXED32: "fixed32",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_ENUM: "int32",
    FieldDescriptor.TYPE_SFIXED32: "sfixed32",
    FieldDescriptor.TYPE_SFIXED64: "sfixed64",
    FieldDescriptor.TYPE_SINT32: "sint32",
    FieldDescriptor.TYPE_SINT64: "sint64",
}


def flatten(root: Descriptor, *, extra_fields: Iterable[str] = ()) -> str:
    """The schema of `root` under the name `Event`, with `extra_fields` declared behind its own."""
    messages = _reachable(root)
    names = {message.full_name: _short_name(message) for message in messages}
    names[root.full_name] = ROOT
    parts = ['syntax = "proto3";']
    for message in messages:
        lines = [_field(field, names) for field in message.fields]
        if message is root:
            lines.extend(extra_fields)
        body = "\n".join(f"  {line}" for line in lines)
        parts.append(f"message {names[message.full_name]} {{\n{body}\n}}")
    return "\n".join(parts) + "\n"


def _reachable(root: Descriptor) -> list[Descriptor]:
    found = {root.full_name: root}
    waiting = [root]
    while waiting:
        for field in waiting.pop().fields:
            target = field.message_type
            if target is not None and _is_map(field):
                target = target.fields_by_name["value"].message_type
            if target is not None and target.full_name not in found:
                found[target.full_name] = target
                waiting.append(target)
    return list(found.values())


def _field(field: FieldDescriptor, names: dict[str, str]) -> str:
    return f"{_type(field, names)} {field.name} = {field.number};"


def _type(field: FieldDescriptor, names: dict[str, str]) -> str:
    if _is_map(field):
        entry = field.message_type
        assert entry is not None
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        return f"map<{_bare_type(key, names)}, {_bare_type(value, names)}>"
    bare = _bare_type(field, names)
    if field.is_repeated:
        return f"repeated {bare}"
    # Members of a oneof are written as optional: the same wire, and ClickHouse sees which one is there.
    return f"optional {bare}" if field.has_presence and field.message_type is None else bare


def _bare_type(field: FieldDescriptor, names: dict[str, str]) -> str:
    if field.message_type is not None:
        return names[field.message_type.full_name]
    return _SCALARS[field.type]


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _short_name(message: Descriptor) -> str:
    """`binnacle.type.v1.Usage` → `binnacle_type_v1_Usage`: unique, and no package to resolve."""
    return message.full_name.replace(".", "_")
