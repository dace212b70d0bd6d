"""Filters as Weaviate's, with the meaning of `domain.filter.matches`. Pure; used by `searching.py`.

Weaviate's own `Not` and `NotEqual` hold where a property is missing, as they must.
"""

from collections.abc import Callable, Mapping
from typing import Any, assert_never

from weaviate.classes.query import Filter as Weaviate
from weaviate.collections.classes.filters import _Filters as WeaviateFilter

from servicekit.adapters.weaviate.naming import containing_pattern, property_name, text_key
from servicekit.domain.chunk import MetadataScalar
from servicekit.domain.filter import All, Comparison, FieldKind, Filter, Not, Operator
from servicekit.domain.filter import Any as AnyOf


def to_weaviate(condition: Filter, fields: Mapping[str, FieldKind]) -> WeaviateFilter:
    """The condition; its fields and kinds have been checked."""
    match condition:
        case Comparison():
            return _compare(condition, fields.get(condition.field, FieldKind.TEXT))
        case All(filters):
            return Weaviate.all_of([to_weaviate(inner, fields) for inner in filters])
        case AnyOf(filters):
            return Weaviate.any_of([to_weaviate(inner, fields) for inner in filters])
        case Not(inner):
            return Weaviate.not_(to_weaviate(inner, fields))
        case _:
            assert_never(condition)


def _compare(comparison: Comparison, kind: FieldKind) -> WeaviateFilter:
    stored = Weaviate.by_property(property_name(comparison.field, kind))
    if comparison.operator is Operator.CONTAINS:
        return stored.like(containing_pattern(str(comparison.values[0])))
    values = [stored_value(value) for value in comparison.values]
    if comparison.operator is Operator.IN:
        return Weaviate.any_of([stored.equal(value) for value in values])
    compare: Callable[[Any], WeaviateFilter] = getattr(stored, _METHODS[comparison.operator])
    return compare(values[0])


_METHODS: Mapping[Operator, str] = {
    Operator.EQUAL: "equal",
    Operator.NOT_EQUAL: "not_equal",
    Operator.LESS: "less_than",
    Operator.LESS_EQUAL: "less_or_equal",
    Operator.GREATER: "greater_than",
    Operator.GREATER_EQUAL: "greater_or_equal",
}


def stored_value(value: MetadataScalar) -> str | float | bool:
    """A value as its property holds it."""
    if isinstance(value, str):
        return text_key(value)
    return value if isinstance(value, bool) else float(value)
