"""A small valid instance of a JSON schema or a regular expression, as a model under TGI's grammar would write it.

Pure; called by `generation.py`. Covers the usual keywords; what it makes is checked against the schema, so that a
keyword it does not know is refused as TGI refuses what its own compiler does not know.
"""

import json
import math
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

import jsonschema
import rstr

from servicekit.testing.tgi_server.parameters import Grammar
from servicekit.testing.tgi_server.refusals import invalid

_DEEPEST = 6
_REPEATS = re.compile(r"(?<!\\)([*+])")
_FORMATS = {
    "date-time": "2030-01-02T03:04:05Z",
    "date": "2030-01-02",
    "time": "03:04:05Z",
    "email": "a@example.org",
    "uri": "https://example.org/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "hostname": "example.org",
}
_KINDS = ("properties", "object"), ("items", "array"), ("minimum", "number"), ("pattern", "string")


def instance_of(grammar: Grammar) -> str:
    """The text of an instance.

    Raises:
        Refusal: the grammar is none, or cannot be kept.
    """
    if grammar.regex is not None:
        return _matching(grammar.regex)
    schema = _schema(grammar.schema)
    instance = _Maker(schema).make(schema, 0)
    try:
        jsonschema.Draft202012Validator(schema).validate(instance)
    except jsonschema.ValidationError as error:
        raise invalid(f"cannot compile regex from schema: {error.message}") from None
    return json.dumps(instance, ensure_ascii=False)


def _schema(value: Any) -> Mapping[str, Any]:
    """The schema, refused in TGI's words where it is none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise invalid(f"grammar is not valid: {error}") from None
    if not isinstance(value, dict):
        raise invalid("grammar is not supported")
    try:
        jsonschema.Draft202012Validator.check_schema(value)
    except jsonschema.SchemaError as error:
        raise invalid(f"grammar is not valid: {error.message}") from None
    if "properties" not in value:
        raise invalid("grammar is not valid: Grammar must have a 'properties' field")
    return value


class _Maker:
    """Makes instances of a schema and its parts; every property is there until it gets too deep."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def make(self, schema: Any, depth: int) -> Any:
        """An instance of one part."""
        schema = self._resolved(schema if isinstance(schema, Mapping) else {})
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        for choice in ("anyOf", "oneOf"):
            if schema.get(choice):
                # The last is the way out where the first leads round in circles.
                picked = schema[choice][0 if depth < _DEEPEST else -1]
                rest = {name: value for name, value in schema.items() if name != choice}
                return self.make(_merged(rest, self._resolved(picked)), depth)
        return self._of_kind(_kind(schema), schema, depth)

    def _of_kind(self, kind: str, schema: Mapping[str, Any], depth: int) -> Any:
        makers: dict[str, Callable[[], Any]] = {
            "object": lambda: self._object(schema, depth),
            "array": lambda: self._array(schema, depth),
            "string": lambda: _string(schema),
            "integer": lambda: _number(schema, whole=True),
            "number": lambda: _number(schema, whole=False),
            "boolean": lambda: True,
            "null": lambda: None,
        }
        return makers[kind]()

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema with its reference followed and its `allOf` merged in."""
        followed = 0
        while "$ref" in schema and followed < _DEEPEST:
            target: Any = self._root
            for step in str(schema["$ref"]).removeprefix("#").strip("/").split("/"):
                target = target.get(step.replace("~1", "/").replace("~0", "~"), {}) if step else target
            schema = _merged({name: value for name, value in schema.items() if name != "$ref"}, target)
            followed += 1
        for part in schema.get("allOf", ()):
            schema = _merged({name: value for name, value in schema.items() if name != "allOf"}, self._resolved(part))
        return schema

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = schema.get("required", ())
        names = [*properties] if depth < _DEEPEST - 2 else [name for name in properties if name in required]
        names += [name for name in required if name not in names]
        return {name: self.make(properties.get(name, {"type": "string"}), depth + 1) for name in names}

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        first = [self.make(item, depth + 1) for item in schema.get("prefixItems", ())]
        wanted = max(int(schema.get("minItems", 0)), len(first), int(depth < _DEEPEST - 2))
        wanted = min(wanted, int(schema.get("maxItems", wanted)))
        if schema.get("items") is False:
            wanted = len(first)
        item = schema.get("items", {"type": "string"})
        return [*first, *(self.make(item, depth + 1) for _ in range(wanted - len(first)))]


def _kind(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        return str(kind[0])
    return str(kind) if kind else next((kind for keyword, kind in _KINDS if keyword in schema), "string")


def _merged(schema: Mapping[str, Any], other: Mapping[str, Any]) -> Mapping[str, Any]:
    both = {**schema, **other}
    if "properties" in schema and "properties" in other:
        both["properties"] = {**schema["properties"], **other["properties"]}
    if "required" in schema and "required" in other:
        both["required"] = [*schema["required"], *other["required"]]
    return both


def _string(schema: Mapping[str, Any]) -> str:
    if "pattern" in schema:
        return _matching(schema["pattern"])
    text = _FORMATS.get(schema.get("format", ""), "text")
    text += "x" * (int(schema.get("minLength", 0)) - len(text))
    return text[: int(schema.get("maxLength", len(text)))]


def _number(schema: Mapping[str, Any], *, whole: bool) -> float:
    step = schema.get("multipleOf", 1)
    lowest = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf))
    highest = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf))
    if lowest == -math.inf:
        value = math.floor(min(highest, 1) / step) * step
        value -= step * (value == schema.get("exclusiveMaximum"))
    else:
        value = math.ceil(lowest / step) * step
        value += step * (value == schema.get("exclusiveMinimum"))
    if not whole and not lowest <= value <= highest:
        value = (lowest + highest) / 2
    return int(value) if whole else value


def _matching(pattern: str) -> str:
    """A text that matches; the same one for the same pattern, with few repetitions."""
    short = _REPEATS.sub(lambda match: "{1,2}" if match.group() == "+" else "{0,2}", pattern)
    for candidate in (short, pattern):
        try:
            text = rstr.Rstr(random.Random(0)).xeger(candidate)  # noqa: S311  # the same text each time
        except (re.error, KeyError, ValueError):
            continue
        if re.search(pattern, text):
            return text
    raise invalid(f"grammar is not valid: no text was found that matches {pattern!r}")
