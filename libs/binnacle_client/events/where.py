"""Conditions on events: `outcome=INTERACTION_OUTCOME_BLOCKED`, `usage.input_tokens=12`, `ce_tenant=acme`, `key=…`.

Pure; used by `binnacle tail --where`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from binnacle_client.events.event import Event, M
from binnacle_client.events.schema import to_json
from servicekit.errors import InvalidRequest

_ENVELOPE: Mapping[str, str] = {
    "ce_id": "id",
    "ce_source": "source",
    "ce_type": "type",
    "ce_tenant": "tenant",
    "ce_producer": "producer",
    "ce_sequence": "sequence",
    "traceparent": "traceparent",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """`path` is a header, `key`, or a field of the message, with dots; `value` is what its JSON says, as text."""

    path: str
    value: str

    def holds(self, event: Event[M]) -> bool:
        """Whether it is so; of a repeated field one element is enough."""
        if self.path == "key":
            return event.key == self.value
        if self.path in _ENVELOPE:
            return str(getattr(event.envelope, _ENVELOPE[self.path])) == self.value
        steps = self.path.split(".")
        return any(_text(found) == self.value for found in _walk(to_json(event.payload, defaults=True), steps))


def parse_condition(text: str, *, message_type: type[Message]) -> Condition:
    """A condition as people write it; its path must exist.

    Raises:
        InvalidRequest: no `=`, or no header or field of that name.
    """
    path, equals, value = text.partition("=")
    if not equals:
        raise InvalidRequest(f"where must be field=value, got {text!r}", field="where")
    if path != "key" and path not in _ENVELOPE:
        _check(path.split("."), message_type, text)
    return Condition(path, value)


def _check(steps: list[str], message_type: type[Message], text: str) -> None:
    descriptor: Any = message_type.DESCRIPTOR
    for position, step in enumerate(steps):
        if descriptor is None:
            raise InvalidRequest(f"where: {'.'.join(steps[:position])} has no fields, in {text!r}", field="where")
        field = descriptor.fields_by_name.get(step)
        if field is None:
            known = [*(sorted(_ENVELOPE) if position == 0 else ()), *sorted(descriptor.fields_by_name)]
            raise InvalidRequest(
                f"where: {descriptor.name} has no field {step!r}; there are {', '.join(known)}", field="where"
            )
        if _is_free(field):
            return
        descriptor = field.message_type


def _is_free(field: FieldDescriptor) -> bool:
    """Whether the steps below are not fields: a map's keys, or a time, which JSON writes as text."""
    found = field.message_type
    return found is not None and (found.GetOptions().map_entry or found.full_name.startswith("google.protobuf."))


def _walk(value: Any, steps: list[str]) -> Iterator[Any]:
    if isinstance(value, list):
        for one in value:
            yield from _walk(one, steps)
    elif not steps:
        yield value
    elif isinstance(value, dict) and steps[0] in value:
        yield from _walk(value[steps[0]], steps[1:])


def _text(value: Any) -> str:
    """As JSON writes it: true, 12, 0.5."""
    return str(value).lower() if isinstance(value, bool) else str(value)
