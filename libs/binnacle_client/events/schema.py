"""Decodes events to JSON with a `FileDescriptorSet` alone, without generated classes: any version with any other.

Used by `binnacle tail`, and by consumers who keep the descriptors of the version that they were written against.
"""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from servicekit.errors import InvalidRequest, NotFound
from servicekit.events.topics import TOPICS

SHIPPED = "events.binpb"

Json = dict[str, Any]


class EventSchema:
    """The messages of one version of the descriptors, in a pool of their own."""

    def __init__(self, descriptors: FileDescriptorSet) -> None:
        self._pool = DescriptorPool()
        for file in descriptors.file:
            self._pool.Add(file)

    @classmethod
    def shipped(cls) -> Self:
        """This package's own version."""
        return cls(FileDescriptorSet.FromString((files("binnacle") / SHIPPED).read_bytes()))

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Another version, from a file that `protoc --descriptor_set_out --include_imports` or `buf build` wrote.

        Raises:
            InvalidRequest: the file is none.
        """
        try:
            return cls(FileDescriptorSet.FromString(path.read_bytes()))
        except (OSError, DecodeError, TypeError) as exc:
            raise InvalidRequest(f"{path} is no FileDescriptorSet with its imports: {exc}", field="path") from exc

    def message_type(self, name: str) -> type[Message]:
        """The class for a topic or for a message's full name.

        Raises:
            NotFound: the descriptors have no such message.
        """
        full_name = TOPICS[name].message if name in TOPICS else name
        try:
            return GetMessageClass(self._pool.FindMessageTypeByName(full_name))
        except KeyError as exc:
            raise NotFound(f"these descriptors have no message {full_name!r} ({name})") from exc

    def decode(self, name: str, value: bytes) -> Json:
        """The bytes of an event of that topic, or of that message, as JSON.

        Raises:
            NotFound: the descriptors have no such message.
            InvalidRequest: the bytes do not parse.
        """
        message_type = self.message_type(name)
        try:
            return to_json(message_type.FromString(value))
        except DecodeError as exc:
            raise InvalidRequest(f"the bytes are no {message_type.DESCRIPTOR.full_name}: {exc}", field="value") from exc


def to_json(message: Message, *, defaults: bool = False) -> Json:
    """Protobuf's JSON: the fields' own names, enums by name, 64-bit integers as strings, bytes in Base64, times in UTC.

    Fields with their default (0, "", false, empty) are left out unless `defaults`.
    """
    found: Mapping[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=defaults
    )
    return dict(found)
