"""What the protos say about events: messages, fields and enums with their comments, from a descriptor set.

Pure; read by `json_schema.py`, `asyncapi.py` and `pages.py`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

# Numbers of fields in descriptor.proto, of which the paths of comments are made.
_FILE_MESSAGES, _FILE_ENUMS = 4, 5
_MESSAGE_FIELDS, _MESSAGE_NESTED, _MESSAGE_ENUMS, _ENUM_VALUES = 2, 3, 4, 2
_OURS = "binnacle."

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FieldDoc:
    """One field. `type` is protobuf's scalar (`int64`), or the full name of a message or enum.

    `map_key` is the type of the keys of a map, whose values are of `type`; None for other fields.
    """

    name: str
    number: int
    type: str
    comment: str
    repeated: bool
    map_key: str | None = None


@dataclass(frozen=True, slots=True)
class MessageDoc:
    """One message; `file` is its path below `protos/`."""

    full_name: str
    comment: str
    file: str
    fields: Sequence[FieldDoc]


@dataclass(frozen=True, slots=True)
class EnumValueDoc:
    """One value of an enum."""

    name: str
    number: int
    comment: str


@dataclass(frozen=True, slots=True)
class EnumDoc:
    """One enum."""

    full_name: str
    comment: str
    values: Sequence[EnumValueDoc]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Our messages and enums by full name."""

    messages: Mapping[str, MessageDoc]
    enums: Mapping[str, EnumDoc]

    def reachable(self, full_name: str) -> list[str]:
        """The messages and enums of ours that a message holds, itself first, each once, in the order of its fields."""
        found: dict[str, None] = {}
        waiting = [full_name]
        while waiting:
            name = waiting.pop(0)
            if name in found or not (name in self.messages or name in self.enums):
                continue
            found[name] = None
            if name in self.messages:
                waiting.extend(field.type for field in self.messages[name].fields)
        return list(found)


def read_catalogue(descriptors: FileDescriptorSet) -> Catalogue:
    """Everything of ours in a descriptor set that was written with its source's comments."""
    messages: dict[str, MessageDoc] = {}
    enums: dict[str, EnumDoc] = {}
    for file in descriptors.file:
        if not file.package.startswith(_OURS):
            continue
        comments = {tuple(one.path): _clean(one.leading_comments) for one in file.source_code_info.location}
        for path, name, message in _messages(file):
            messages[name] = _message_doc(file, path, name, message, comments)
        for path, name, enum in _enums(file):
            enums[name] = _enum_doc(path, name, enum, comments)
    return Catalogue(messages, enums)


def _clean(comment: str) -> str:
    return " ".join(line.strip() for line in comment.strip().splitlines())


def _messages(file: FileDescriptorProto) -> Iterator[tuple[Path, str, DescriptorProto]]:
    for index, message in enumerate(file.message_type):
        yield from _with_nested((_FILE_MESSAGES, index), f"{file.package}.{message.name}", message)


def _with_nested(path: Path, name: str, message: DescriptorProto) -> Iterator[tuple[Path, str, DescriptorProto]]:
    yield path, name, message
    for index, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from _with_nested((*path, _MESSAGE_NESTED, index), f"{name}.{nested.name}", nested)


def _enums(file: FileDescriptorProto) -> Iterator[tuple[Path, str, EnumDescriptorProto]]:
    for index, enum in enumerate(file.enum_type):
        yield (_FILE_ENUMS, index), f"{file.package}.{enum.name}", enum
    for path, name, message in _messages(file):
        for index, enum in enumerate(message.enum_type):
            yield (*path, _MESSAGE_ENUMS, index), f"{name}.{enum.name}", enum


def _message_doc(
    file: FileDescriptorProto, path: Path, name: str, message: DescriptorProto, comments: Mapping[Path, str]
) -> MessageDoc:
    entries = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    return MessageDoc(
        full_name=name,
        comment=comments.get(path, ""),
        file=file.name,
        fields=tuple(
            _field_doc(field, comments.get((*path, _MESSAGE_FIELDS, index), ""), entries)
            for index, field in enumerate(message.field)
        ),
    )


def _field_doc(field: FieldDescriptorProto, comment: str, entries: Mapping[str, DescriptorProto]) -> FieldDoc:
    entry = entries.get(field.type_name.rpartition(".")[2]) if field.type_name else None
    if entry is not None:
        key, value = _by_number(entry.field)
        return FieldDoc(field.name, field.number, _type_of(value), comment, repeated=False, map_key=_type_of(key))
    repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
    return FieldDoc(field.name, field.number, _type_of(field), comment, repeated=repeated)


def _by_number(fields: Iterable[FieldDescriptorProto]) -> tuple[FieldDescriptorProto, FieldDescriptorProto]:
    key, value = sorted(fields, key=lambda field: field.number)
    return key, value


def _type_of(field: FieldDescriptorProto) -> str:
    if field.type_name:
        return field.type_name.removeprefix(".")
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _enum_doc(path: Path, name: str, enum: EnumDescriptorProto, comments: Mapping[Path, str]) -> EnumDoc:
    return EnumDoc(
        full_name=name,
        comment=comments.get(path, ""),
        values=tuple(
            EnumValueDoc(value.name, value.number, comments.get((*path, _ENUM_VALUES, index), ""))
            for index, value in enumerate(enum.value)
        ),
    )
