"""JSON schemas that answers must satisfy: read within bounds, and held against an answer in bounded time.

Pure; used by the generator on what an engine gave, and by the gateway on what the guards have left of it.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import re2
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from servicekit.errors import InvalidRequest

MAX_SCHEMA_BYTES = 65_536
MAX_SCHEMA_DEPTH = 64
DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_CHECK_S = 0.5
"""Time of a processor that one check may take: schemas can be written whose checks grow with 2 to their length."""

_MAX_PATTERN_BYTES = 256 * 1024
_SHOWN_CHARS = 128
_KEPT_SCHEMAS = 128
# Values, in which nothing is a keyword.
_DATA = frozenset({"const", "enum", "default", "examples"})
_UNSUPPORTED = frozenset({"$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"})

_ends_s: ContextVar[float] = ContextVar("ends_s")


class _TooLongError(Exception):
    """The check took its time and did not end."""


class OutputSchema:
    """A schema that was read; made by `read_output_schema`. `hash` is the SHA-256 of its text."""

    def __init__(self, text: str, schema: dict[str, Any]) -> None:
        self.text = text
        self.hash = hashlib.sha256(text.encode()).hexdigest()
        self._validator = _Validator(schema)

    def violation(self, answer: str) -> str | None:
        """What is wrong with the answer, in words of the schema alone, never of the answer; None: it satisfies it.

        Takes at most about `MAX_CHECK_S`.
        """
        try:
            value = json.loads(answer, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return "it is no JSON"
        token = _ends_s.set(time.thread_time() + MAX_CHECK_S)
        try:
            error = next(self._validator.iter_errors(value), None)
        except (_TooLongError, RecursionError, ArithmeticError):
            return "it could not be checked within bounds; use a simpler schema"
        except Exception:  # noqa: BLE001  # what jsonschema raises where a reference leads to what is no schema
            return "it could not be checked; let every $ref of the schema lead to a schema"
        finally:
            _ends_s.reset(token)
        return None if error is None else _told(error)


@lru_cache(maxsize=_KEPT_SCHEMAS)
def read_output_schema(text: str, *, field: str = "output_schema") -> OutputSchema:
    """The schema.

    Raises:
        InvalidRequest: too large or too deep, no JSON object, no schema of draft 2020-12, a reference that leads out
            of it or nowhere, or a pattern that cannot be matched in linear time.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_SCHEMA_BYTES:
        raise _refused(field, f"must be at most {MAX_SCHEMA_BYTES} bytes, got {size}; shorten it")
    try:
        schema = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(schema, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise _refused(field, "must be a JSON object in UTF-8, nested sensibly") from error
    if not isinstance(schema, dict):
        raise _refused(field, f"must be a JSON object, got {type(schema).__name__}")
    if schema.get("$schema", DIALECT) != DIALECT:
        raise _refused(field, f"must be of {DIALECT}, got $schema {_shown(schema['$schema'])}")
    _check_shape(schema, field)
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        place = error.json_path[:_SHOWN_CHARS]
        raise _refused(field, f"is no JSON schema: {_shown(error.message)} at {place}") from error
    _check_keywords(schema, field)
    return OutputSchema(text, schema)


def _check_shape(schema: dict[str, Any], field: str) -> None:
    """Bounds the depth, before anything walks through it recursively."""
    level: list[Any] = [schema]
    for _ in range(MAX_SCHEMA_DEPTH):
        level = [inner for outer in level for inner in _inner(outer)]
        if not level:
            return
    raise _refused(field, f"must be nested at most {MAX_SCHEMA_DEPTH} deep; flatten it with $defs")


def _inner(value: Any) -> Iterable[Any]:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (one for one in values if isinstance(one, dict | list))


def _check_keywords(schema: dict[str, Any], field: str) -> None:
    """References stay within the schema; patterns take linear time."""
    resolver = Registry().with_resource("", DRAFT202012.create_resource(schema)).resolver()
    patterned = unevaluated = False
    for place in _objects(schema):
        if found := _UNSUPPORTED & place.keys():
            raise _refused(field, f"must not use {min(found)}; use $ref and $defs")
        if place is not schema and isinstance(place.get("$id"), str):
            raise _refused(field, "must have a $id nowhere but at its root; use $defs")
        reference = place.get("$ref")
        if isinstance(reference, str):
            _check_reference(reference, resolver, field)
        _check_patterns(place, field)
        patterned |= isinstance(place.get("patternProperties"), dict)
        unevaluated |= "unevaluatedProperties" in place
    if patterned and unevaluated:
        raise _refused(field, "must not have patternProperties and unevaluatedProperties; use additionalProperties")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object that may be a schema, or hold some by name."""
    if isinstance(value, list):
        for one in value:
            yield from _objects(one)
    elif isinstance(value, dict):
        yield value
        for name, one in value.items():
            if name not in _DATA:
                yield from _objects(one)


def _check_reference(reference: str, resolver: Any, field: str) -> None:
    if not reference.startswith("#"):
        raise _refused(field, f"must refer to itself alone (#…), got $ref {_shown(reference)}; copy it into $defs")
    try:
        target = resolver.lookup(reference).contents
    except Unresolvable as error:
        raise _refused(field, f"refers to {_shown(reference)}, which is not there; add it to $defs") from error
    if not isinstance(target, dict | bool):
        raise _refused(field, f"refers to {_shown(reference)}, which is no schema; put one into $defs")


def _check_patterns(place: dict[str, Any], field: str) -> None:
    properties = place.get("patternProperties")
    patterns = [place.get("pattern"), *(properties if isinstance(properties, dict) else ())]
    for pattern in patterns:
        if not isinstance(pattern, str):
            continue
        try:
            _compiled(pattern)
        except re2.error as error:
            raise _refused(
                field,
                f"has the pattern {_shown(pattern)}, which cannot be matched in linear time ({_shown(str(error))}); "
                "do without lookaround, back-references and large repetitions",
            ) from error


@lru_cache(maxsize=4 * _KEPT_SCHEMAS)
def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_PATTERN_BYTES
    return re2.compile(pattern, options)


def _pattern(_: Validator, pattern: str, instance: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _matches(pattern, instance):
        yield ValidationError("does not match the pattern")


def _pattern_properties(validator: Any, properties: Any, instance: Any, _: Any) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for pattern, schema in properties.items():
            for name in [name for name in instance if _matches(pattern, name)]:
                yield from validator.descend(instance[name], schema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, additional: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    patterns = schema.get("patternProperties", ())
    for name in instance.keys() - schema.get("properties", {}).keys():
        if not any(_matches(pattern, name) for pattern in patterns):
            yield from validator.descend(instance[name], additional, path=name)


def _unique_items(_: Validator, unique: Any, instance: Any, __: Any) -> Iterator[ValidationError]:
    """In time linear in the items, where jsonschema's own compares each with each."""
    if unique and isinstance(instance, list) and len({_canonical(item) for item in instance}) < len(instance):
        yield ValidationError("has items that are equal")


def _canonical(value: Any) -> str:
    """The same text for equal JSON values: 1 and 1.0 are equal, 1 and true are not."""
    return json.dumps(_with_whole_numbers(value), sort_keys=True)


def _with_whole_numbers(value: Any) -> Any:
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {name: _with_whole_numbers(one) for name, one in value.items()}
        case list():
            return [_with_whole_numbers(one) for one in value]
        case _:
            return value


def _matches(pattern: str, text: str) -> bool:
    return _compiled(pattern).search(text.encode("utf-8", "replace").decode()) is not None


def _timed(check: Callable[..., Any]) -> Callable[..., Any]:
    """The same check, unless the time is over."""

    def timed(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        if time.thread_time() > _ends_s.get():
            raise _TooLongError
        return check(validator, value, instance, schema)

    return timed


_CHECKS = Draft202012Validator.VALIDATORS | {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
}
_Validator: Any = extend(  # type: ignore[no-untyped-call]  # its stubs leave it so
    Draft202012Validator, {name: _timed(check) for name, check in _CHECKS.items()}
)


def _told(error: ValidationError) -> str:
    path = "/".join(["#", *map(str, error.absolute_schema_path)])
    return f"it breaks {_shown(path)}"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _refused(field: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"{field} {what}", field=field, reason="INVALID_OUTPUT_SCHEMA")


def _shown(text: object) -> str:
    return ascii(str(text)[:_SHOWN_CHARS])
