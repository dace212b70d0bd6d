"""Translates a filter into the store's SQL, value by value quoted. Used by `tenant.py`.

Every comparison is guarded by IS NOT NULL, so that a missing field is false and not unknown, as
`servicekit.domain.filter` defines it.
"""

from collections.abc import Iterable
from typing import assert_never

from servicekit.adapters.lancedb.schema import METADATA_PREFIX
from servicekit.domain.chunk import MetadataScalar
from servicekit.domain.filter import DOCUMENT_FIELDS, All, Any, Comparison, Filter, Not, Operator

_SYMBOLS = {
    Operator.EQUAL: "=",
    Operator.LESS: "<",
    Operator.LESS_EQUAL: "<=",
    Operator.GREATER: ">",
    Operator.GREATER_EQUAL: ">=",
}


def to_sql(condition: Filter) -> str:
    """The condition as a boolean SQL expression; it has passed `check_filter`."""
    match condition:
        case Comparison():
            return _comparison(condition)
        case All(filters):
            return _join("AND", filters)
        case Any(filters):
            return _join("OR", filters)
        case Not(inner):
            return f"NOT {to_sql(inner)}"
        case _:
            assert_never(condition)


def equals_any(column: str, values: Iterable[str]) -> str:
    """`column` is one of these texts."""
    return f"{column} IN ({', '.join(map(quote, values))})"


def quote(value: MetadataScalar) -> str:
    """A SQL literal."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"CAST('{float(value)!r}' AS DOUBLE)"


def _join(word: str, filters: tuple[Filter, ...]) -> str:
    return "(" + f" {word} ".join(map(to_sql, filters)) + ")"


def _comparison(comparison: Comparison) -> str:
    name = comparison.field
    column = name.removeprefix("_") if name in DOCUMENT_FIELDS else f"`{METADATA_PREFIX}{name}`"
    if comparison.operator is Operator.NOT_EQUAL:
        return f"NOT ({column} IS NOT NULL AND {column} = {quote(comparison.values[0])})"
    return f"({column} IS NOT NULL AND {_test(column, comparison)})"


def _test(column: str, comparison: Comparison) -> str:
    first = quote(comparison.values[0])
    if comparison.operator is Operator.CONTAINS:
        return f"contains({column}, {first})"
    if comparison.operator is Operator.IN:
        return f"{column} IN ({', '.join(map(quote, comparison.values))})"
    return f"{column} {_SYMBOLS[comparison.operator]} {first}"
