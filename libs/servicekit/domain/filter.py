"""Conditions on metadata: a small typed tree, checked against what is known, and its meaning.

Pure; read from requests by the retriever, evaluated here by the memory store, translated by other stores.

Two-valued throughout: a comparison of a field that a chunk lacks is false, so `Not` of it and NOT_EQUAL hold.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import assert_never

from servicekit.domain.chunk import MetadataScalar
from servicekit.errors import InvalidRequest

# Fields that every chunk has; names of metadata never begin with an underscore.
DOCUMENT_FIELDS = ("_document_id", "_title", "_source_uri")


class FieldKind(StrEnum):
    """What a metadata field holds; whole numbers and fractions are one kind."""

    TEXT = "text"
    NUMBER = "number"
    BOOLEAN = "boolean"


def kind_of(value: MetadataScalar) -> FieldKind:
    """The kind of a value; `True` is no number here."""
    if isinstance(value, bool):
        return FieldKind.BOOLEAN
    return FieldKind.TEXT if isinstance(value, str) else FieldKind.NUMBER


class Operator(StrEnum):
    """How a field is compared."""

    EQUAL = "equal"
    NOT_EQUAL = "not_equal"
    IN = "in"
    LESS = "less"
    LESS_EQUAL = "less_equal"
    GREATER = "greater"
    GREATER_EQUAL = "greater_equal"
    CONTAINS = "contains"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One field against one value, or several for IN; `path` says where it stood in the request."""

    field: str
    operator: Operator
    values: tuple[MetadataScalar, ...]
    path: str = "filter"


@dataclass(frozen=True, slots=True)
class All:
    """Every one of them holds."""

    filters: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Any:
    """At least one of them holds."""

    filters: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """It does not hold."""

    inner: "Filter"


Filter = Comparison | All | Any | Not


def check_filter(condition: Filter, known: Mapping[str, FieldKind]) -> None:
    """Refuse a field that no document of the tenant has, and a value of another kind than the field's.

    Raises:
        InvalidRequest: names the field, what is known, and what was given.
    """
    match condition:
        case Comparison():
            _check_comparison(condition, known)
        case All(filters) | Any(filters):
            for inner in filters:
                check_filter(inner, known)
        case Not(inner):
            check_filter(inner, known)
        case _:
            assert_never(condition)


def _check_comparison(comparison: Comparison, known: Mapping[str, FieldKind]) -> None:
    name = comparison.field
    kind = FieldKind.TEXT if name in DOCUMENT_FIELDS else known.get(name)
    if kind is None:
        names = [*sorted(known), *DOCUMENT_FIELDS]
        near = get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InvalidRequest(
            f"{comparison.path}: unknown field {name!r}; known fields are {', '.join(names)}{hint}",
            field=f"{comparison.path}.field",
            reason="UNKNOWN_FILTER_FIELD",
        )
    for value in comparison.values:
        if kind_of(value) is not kind:
            raise InvalidRequest(
                f"{comparison.path}: field {name!r} holds {kind}, got {value!r}: compare with a {kind} value",
                field=f"{comparison.path}.values",
                reason="FILTER_KIND_MISMATCH",
            )
    if comparison.operator is Operator.CONTAINS and kind is not FieldKind.TEXT:
        raise InvalidRequest(
            f"{comparison.path}: contains works on text, field {name!r} holds {kind}",
            field=f"{comparison.path}.operator",
            reason="FILTER_KIND_MISMATCH",
        )


def matches(condition: Filter, fields: Mapping[str, MetadataScalar]) -> bool:
    """Whether a chunk with these fields meets the condition; the meaning every store agrees with."""
    match condition:
        case Comparison():
            value = fields.get(condition.field)
            if value is None:
                return condition.operator is Operator.NOT_EQUAL
            return _COMPARE[condition.operator](value, condition.values)
        case All(filters):
            return all(matches(inner, fields) for inner in filters)
        case Any(filters):
            return any(matches(inner, fields) for inner in filters)
        case Not(inner):
            return not matches(inner, fields)
        case _:
            assert_never(condition)


_Compare = Callable[[MetadataScalar, tuple[MetadataScalar, ...]], bool]


def _ordered(compare: Callable[[MetadataScalar, MetadataScalar], bool]) -> _Compare:
    return lambda value, values: kind_of(value) is kind_of(values[0]) and compare(value, values[0])


# Text orders by code point. Both sides are of one kind here, so the operand types ignored never occur.
_COMPARE: Mapping[Operator, _Compare] = {
    Operator.EQUAL: lambda value, values: value == values[0],
    Operator.NOT_EQUAL: lambda value, values: value != values[0],
    Operator.IN: lambda value, values: value in values,
    Operator.LESS: _ordered(lambda a, b: a < b),  # type: ignore[operator]  # one kind, see above
    Operator.LESS_EQUAL: _ordered(lambda a, b: a <= b),  # type: ignore[operator]  # one kind, see above
    Operator.GREATER: _ordered(lambda a, b: a > b),  # type: ignore[operator]  # one kind, see above
    Operator.GREATER_EQUAL: _ordered(lambda a, b: a >= b),  # type: ignore[operator]  # one kind, see above
    Operator.CONTAINS: lambda value, values: str(values[0]) in str(value),
}
