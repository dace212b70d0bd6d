"""Golden event bytes: what was written by an earlier version is still read, and means the same.

One JSON file a message under `golden/`: the fields of an example and its bytes in hexadecimal. A file is never
changed; when a message gains fields, a further file (`Name.2.json`) is added by running this module.
"""

import json
import sys
from pathlib import Path

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from servicekit.events.topics import TOPICS, message_class

GOLDEN = Path(__file__).parent / "golden"
_BY_MESSAGE = {spec.message.rpartition(".")[2]: message_class(spec.name) for spec in TOPICS.values()}
_FILES = sorted(GOLDEN.glob("*.json"))
_MAX_DEPTH = 4


@pytest.mark.parametrize("path", _FILES, ids=[path.stem for path in _FILES])
def test_golden_bytes_mean_the_same(path: Path) -> None:
    """Bytes written once decode into the fields recorded with them, and encode into the same bytes again."""
    golden = json.loads(path.read_text(encoding="utf-8"))
    message_type = _BY_MESSAGE[path.stem.partition(".")[0]]
    decoded = message_type.FromString(bytes.fromhex(golden["bytes"]))
    assert decoded == json_format.ParseDict(golden["fields"], message_type())
    assert decoded.SerializeToString(deterministic=True).hex() == golden["bytes"]


@pytest.mark.parametrize("name", sorted(_BY_MESSAGE))
def test_every_event_has_golden_bytes(name: str) -> None:
    """No event message is without an example."""
    assert list(GOLDEN.glob(f"{name}.*json"))


@pytest.mark.parametrize("name", sorted(_BY_MESSAGE))
def test_newest_golden_sets_every_field(name: str) -> None:
    """The newest example of a message covers all of its fields; add one when a field is added."""
    newest = max(GOLDEN.glob(f"{name}.*json"), key=_version)
    decoded = _BY_MESSAGE[name].FromString(bytes.fromhex(json.loads(newest.read_text(encoding="utf-8"))["bytes"]))
    unset = [field.name for field in decoded.DESCRIPTOR.fields if not _is_set(decoded, field)]
    assert unset == []


def _version(path: Path) -> int:
    _, _, number = path.stem.partition(".")
    return int(number or 1)


def _is_set(message: Message, field: FieldDescriptor) -> bool:
    if field.is_repeated or not field.has_presence:
        return bool(getattr(message, field.name))
    return message.HasField(field.name)


def _fill(message: Message, *, seed: int, depth: int = 0) -> None:
    """Set every field to a value that depends on its number, so that swapped fields show."""
    for field in message.DESCRIPTOR.fields:
        number = seed * 100 + field.number
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _fill_map(message, field, number)
        elif field.message_type is not None:
            if depth < _MAX_DEPTH:
                holder = getattr(message, field.name)
                _fill(holder.add() if field.is_repeated else holder, seed=number % 97, depth=depth + 1)
        elif field.is_repeated:
            getattr(message, field.name).append(_scalar(field, number))
        else:
            setattr(message, field.name, _scalar(field, number))


def _fill_map(message: Message, field: FieldDescriptor, number: int) -> None:
    value = field.message_type.fields_by_name["value"]
    entries = getattr(message, field.name)
    if value.message_type is not None:
        _fill(entries[f"key-{number}"], seed=number % 97, depth=_MAX_DEPTH)
    else:
        entries[f"key-{number}"] = _scalar(value, number)


def _scalar(field: FieldDescriptor, number: int) -> object:
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    kinds: dict[int, object] = {
        FieldDescriptor.CPPTYPE_STRING: f"{field.name}-{number}",
        FieldDescriptor.CPPTYPE_BOOL: True,
        FieldDescriptor.CPPTYPE_DOUBLE: number + 0.25,
        FieldDescriptor.CPPTYPE_FLOAT: number + 0.5,
    }
    if field.type == FieldDescriptor.TYPE_BYTES:
        return f"{field.name}-{number}".encode()
    return kinds.get(field.cpp_type, number)


def _record_missing() -> None:
    """Write an example for every message whose newest one does not cover its fields."""
    for name, message_type in _BY_MESSAGE.items():
        message = message_type()
        _fill(message, seed=1)
        encoded = message.SerializeToString(deterministic=True)
        existing = sorted(GOLDEN.glob(f"{name}.*json"), key=_version)
        if existing and json.loads(existing[-1].read_text(encoding="utf-8"))["bytes"] == encoded.hex():
            continue
        path = GOLDEN / (f"{name}.{_version(existing[-1]) + 1}.json" if existing else f"{name}.json")
        fields = json_format.MessageToDict(message, preserving_proto_field_name=True)
        content = {"fields": fields, "bytes": encoded.hex()}
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        sys.stdout.write(f"wrote {path.name}\n")


if __name__ == "__main__":
    _record_missing()
