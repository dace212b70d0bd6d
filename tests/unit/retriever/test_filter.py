"""Filters: reading them from requests, their meaning, and agreement of the SQL translation with it."""

import asyncio
import tempfile
from collections.abc import Iterator, Mapping

import lancedb
import pyarrow as pa  # type: ignore[import-untyped]  # ships no stubs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from binnacle.type.v1 import chunk_pb2
from servicekit.adapters.lancedb.predicate import to_sql
from servicekit.domain.chunk import MetadataScalar
from servicekit.domain.filter import All, Any, Comparison, FieldKind, Filter, Not, Operator, check_filter, matches
from servicekit.errors import InvalidRequest
from services.retriever.convert_search import MAX_DEPTH, MAX_FILTERS, filter_from

KNOWN = {"text": FieldKind.TEXT, "number": FieldKind.NUMBER, "flag": FieldKind.BOOLEAN}
WORDS = st.one_of(
    st.sampled_from(["", "a", "A", "'", "%", "_", "\\", '"', "`", "é", "👩\u200d🚀", "a'b", "NULL"]),
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=4),
)
NUMBERS = st.one_of(st.integers(-3, 3), st.floats(-3, 3), st.floats(allow_nan=False, allow_infinity=False))
VALUES: Mapping[str, st.SearchStrategy[MetadataScalar]] = {"text": WORDS, "number": NUMBERS, "flag": st.booleans()}
ORDERED = [Operator.LESS, Operator.LESS_EQUAL, Operator.GREATER, Operator.GREATER_EQUAL]


def _comparisons(name: str) -> st.SearchStrategy[Filter]:
    single = [Operator.EQUAL, Operator.NOT_EQUAL, *ORDERED, *([Operator.CONTAINS] if name == "text" else [])]
    values = VALUES[name]
    one = st.builds(lambda op, value: Comparison(name, op, (value,)), st.sampled_from(single), values)
    several = st.lists(values, min_size=1, max_size=3).map(lambda found: Comparison(name, Operator.IN, tuple(found)))
    return st.one_of(one, several)


FILTERS: st.SearchStrategy[Filter] = st.recursive(
    st.sampled_from(sorted(KNOWN)).flatmap(_comparisons),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda found: All(tuple(found))),
        st.lists(inner, min_size=1, max_size=3).map(lambda found: Any(tuple(found))),
        inner.map(Not),
    ),
    max_leaves=6,
)
ROWS = st.lists(st.fixed_dictionaries({}, optional=dict(VALUES)).map(dict), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def folder() -> Iterator[str]:
    """A database for all examples."""
    with tempfile.TemporaryDirectory() as path:
        yield path


async def _matching(folder: str, rows: list[dict[str, MetadataScalar]], sql: str) -> set[int]:
    schema = pa.schema(
        [("place", pa.int64()), ("m_text", pa.string()), ("m_number", pa.float64()), ("m_flag", pa.bool_())]
    )
    columns = {
        "place": list(range(len(rows))),
        "m_text": [row.get("text") for row in rows],
        "m_number": [None if row.get("number") is None else float(row["number"]) for row in rows],
        "m_flag": [row.get("flag") for row in rows],
    }
    connection = await lancedb.connect_async(folder)
    table = await connection.create_table("rows", pa.table(columns, schema=schema), mode="overwrite")
    return {row["place"] for row in await table.query().where(sql).to_list()}


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(condition=FILTERS, rows=ROWS)
def test_sql_means_what_the_filter_means(folder: str, condition: Filter, rows: list[dict[str, MetadataScalar]]) -> None:
    """For any filter and any rows the store keeps exactly those that the definition keeps."""
    check_filter(condition, KNOWN)
    expected = {place for place, row in enumerate(rows) if matches(condition, row)}
    assert asyncio.run(_matching(folder, rows, to_sql(condition))) == expected


@given(condition=FILTERS, row=st.fixed_dictionaries({}, optional=dict(VALUES)))
def test_a_filter_and_its_negation_part_everything(condition: Filter, row: dict[str, MetadataScalar]) -> None:
    """Every chunk meets a filter or its negation, never both, missing fields included."""
    assert matches(condition, row) is not matches(Not(condition), row)


def _message(field: str = "lang", operator: int = chunk_pb2.OPERATOR_EQUAL, *texts: str) -> chunk_pb2.Filter:
    values = [chunk_pb2.MetadataValue(string_value=text) for text in texts]
    comparison = chunk_pb2.Comparison(field=field, operator=operator, values=values)  # type: ignore[arg-type]  # any number
    return chunk_pb2.Filter(comparison=comparison)


def test_a_request_reads_into_the_tree_it_draws() -> None:
    """Conditions, nesting and paths come out as they went in."""
    message = chunk_pb2.Filter(
        all=chunk_pb2.FilterList(
            filters=[
                _message("lang", chunk_pb2.OPERATOR_IN, "en", "de"),
                chunk_pb2.Filter(none=_message("team", chunk_pb2.OPERATOR_CONTAINS, "x")),
                chunk_pb2.Filter(any=chunk_pb2.FilterList(filters=[_message("a", chunk_pb2.OPERATOR_LESS, "b")])),
            ]
        )
    )
    assert filter_from(message) == All(
        (
            Comparison("lang", Operator.IN, ("en", "de"), "filter.all.filters[0].comparison"),
            Not(Comparison("team", Operator.CONTAINS, ("x",), "filter.all.filters[1].none.comparison")),
            Any((Comparison("a", Operator.LESS, ("b",), "filter.all.filters[2].any.filters[0].comparison"),)),
        )
    )


def _nested(depth: int) -> chunk_pb2.Filter:
    message = _message("lang", chunk_pb2.OPERATOR_EQUAL, "en")
    for _ in range(depth - 1):
        message = chunk_pb2.Filter(none=message)
    return message


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (chunk_pb2.Filter(), "filter"),
        (chunk_pb2.Filter(all=chunk_pb2.FilterList()), "filter.all.filters"),
        (
            chunk_pb2.Filter(any=chunk_pb2.FilterList(filters=[_message("a", 1, "b")] * (MAX_FILTERS + 1))),
            "filter.any.filters",
        ),
        (_message("lang", 0, "en"), "filter.comparison.operator"),
        (_message("lang", 99, "en"), "filter.comparison.operator"),
        (_message("lang", chunk_pb2.OPERATOR_EQUAL), "filter.comparison.values"),
        (_message("lang", chunk_pb2.OPERATOR_EQUAL, "a", "b"), "filter.comparison.values"),
        (_message("lang", chunk_pb2.OPERATOR_IN, *["x"] * 257), "filter.comparison.values"),
        (_message("lang", chunk_pb2.OPERATOR_EQUAL, "x" * 1_025), "filter.comparison.values[0]"),
        (
            chunk_pb2.Filter(
                comparison=chunk_pb2.Comparison(
                    field="x", operator=chunk_pb2.OPERATOR_EQUAL, values=[chunk_pb2.MetadataValue()]
                )
            ),
            "filter.comparison.values[0]",
        ),
        (_nested(MAX_DEPTH + 1), "filter" + ".none" * MAX_DEPTH),
    ],
)
def test_a_filter_out_of_bounds_is_refused_where_it_stands(message: chunk_pb2.Filter, field: str) -> None:
    """The refusal's field is the path in the request."""
    with pytest.raises(InvalidRequest) as caught:
        filter_from(message)
    assert caught.value.field == field


def test_the_deepest_allowed_filter_is_read() -> None:
    """The bound itself is inside."""
    filter_from(_nested(MAX_DEPTH))
