"""A consumer written against one version of the messages reads the bytes of another, older or newer.

Versions are descriptor sets, each in a pool of its own: the released ones under `protos/baseline`, the one of this
source, and an imagined next one in which every message has gained a field.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message

from binnacle_client.events.schema import SHIPPED, EventSchema, Json, to_json
from servicekit.events.topics import TOPICS

_ROOT = Path(__file__).parent.parent.parent
_GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))
_RELEASED = sorted((_ROOT / "protos" / "baseline").glob("*.binpb"))
_CURRENT = _ROOT / "protos" / "gen" / "binnacle" / SHIPPED
_MESSAGES = {spec.message.rpartition(".")[2]: spec.message for spec in TOPICS.values()}
_NEW_NUMBER = 15_000
_NEW_FIELD = "field_of_the_next_version"


def _bytes_of(path: Path) -> bytes:
    return bytes.fromhex(json.loads(path.read_text(encoding="utf-8"))["bytes"])


def _read(path: Path) -> FileDescriptorSet:
    return FileDescriptorSet.FromString(path.read_bytes())


def _next_version(descriptors: FileDescriptorSet) -> FileDescriptorSet:
    """Every message of ours with one more field."""
    grown = FileDescriptorSet()
    grown.CopyFrom(descriptors)
    for file in grown.file:
        if file.package.startswith("binnacle."):
            for message in _with_nested(file.message_type):
                if not message.options.map_entry:
                    message.field.add(
                        name=_NEW_FIELD,
                        json_name="fieldOfTheNextVersion",
                        number=_NEW_NUMBER,
                        type=FieldDescriptorProto.TYPE_STRING,
                        label=FieldDescriptorProto.LABEL_OPTIONAL,
                    )
    return grown


def _with_nested(messages: object) -> Iterator[DescriptorProto]:
    for message in messages:
        yield message
        yield from _with_nested(message.nested_type)


def _fill_new(message: Message) -> None:
    """Set the new field everywhere in a message."""
    setattr(message, _NEW_FIELD, "new")
    for field, value in message.ListFields():
        if field.message_type is None or not field.message_type.full_name.startswith("binnacle."):
            continue
        if not field.message_type.GetOptions().map_entry:
            for one in value if field.is_repeated else [value]:
                _fill_new(one)


def _without_new(value: Json) -> Json:
    """The JSON of a message as the version before saw it."""
    if isinstance(value, dict):
        return {name: _without_new(one) for name, one in value.items() if name != _NEW_FIELD}
    return [_without_new(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("golden", _GOLDEN, ids=[path.stem for path in _GOLDEN])
@pytest.mark.parametrize("released", _RELEASED, ids=[path.stem for path in _RELEASED])
def test_released_and_current_version_read_each_other(golden: Path, released: Path) -> None:
    """Both read the bytes; what both know is equal, and what one does not know it hands on unharmed."""
    old, new = (EventSchema(_read(path)) for path in (released, _CURRENT))
    name, value = _MESSAGES[golden.stem.partition(".")[0]], _bytes_of(golden)
    seen_by_old = old.message_type(name).FromString(value)
    seen_by_new = new.message_type(name).FromString(value)
    assert _holds(to_json(seen_by_new), to_json(seen_by_old))
    assert new.message_type(name).FromString(seen_by_old.SerializeToString()) == seen_by_new
    assert old.message_type(name).FromString(seen_by_new.SerializeToString()) == seen_by_old


def _holds(larger: object, smaller: object) -> bool:
    """Whether everything in `smaller` stands in `larger` as well; the name of an enum's new value is a number there."""
    if isinstance(smaller, dict):
        return isinstance(larger, dict) and all(
            name in larger and _holds(larger[name], one) for name, one in smaller.items()
        )
    if isinstance(smaller, list):
        return isinstance(larger, list) and len(larger) == len(smaller) and all(map(_holds, larger, smaller))
    return larger == smaller or (isinstance(larger, str) and larger.isupper() and isinstance(smaller, int))


@pytest.mark.parametrize("golden", _GOLDEN, ids=[path.stem for path in _GOLDEN])
def test_this_version_reads_the_next(golden: Path) -> None:
    """Bytes with a new field in every message, nested ones too: all else is read as it was, and the field is kept."""
    descriptors = _read(_CURRENT)
    now, then = EventSchema(descriptors), EventSchema(_next_version(descriptors))
    name = _MESSAGES[golden.stem.partition(".")[0]]
    grown = then.message_type(name).FromString(_bytes_of(golden))
    _fill_new(grown)
    value = grown.SerializeToString()
    assert now.decode(name, value) == _without_new(to_json(grown)) == now.decode(name, _bytes_of(golden))
    handed_on = now.message_type(name).FromString(value).SerializeToString()
    assert then.message_type(name).FromString(handed_on) == grown


@pytest.mark.parametrize("golden", _GOLDEN, ids=[path.stem for path in _GOLDEN])
def test_the_next_version_reads_this(golden: Path) -> None:
    """Bytes of this version in the next one: the new field has its default, all else is as it was."""
    descriptors = _read(_CURRENT)
    now, then = EventSchema(descriptors), EventSchema(_next_version(descriptors))
    name = _MESSAGES[golden.stem.partition(".")[0]]
    read = then.message_type(name).FromString(_bytes_of(golden))
    assert getattr(read, _NEW_FIELD) == ""
    assert to_json(read) == now.decode(name, _bytes_of(golden))


def test_there_is_a_released_version() -> None:
    """Without a baseline nothing would be compared."""
    assert _RELEASED
