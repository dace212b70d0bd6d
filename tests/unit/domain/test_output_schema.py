"""Output schemas: what is refused at the request, what an answer is told, and that no check runs away."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from servicekit.domain.output_schema import MAX_CHECK_S, MAX_SCHEMA_BYTES, read_output_schema
from servicekit.errors import InvalidRequest

_PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Z]"},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "uniqueItems": True},
        "age": {"type": "integer", "minimum": 0},
    },
    "patternProperties": {"^x_": {"type": "boolean"}},
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"tag": {"anyOf": [{"type": "string"}, {"type": "array"}, {"type": "number"}]}},
}


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ('{"name": "Ada", "tags": ["a", "b"], "age": 3, "x_y": true}', None),
        ('{"name": "ada"}', "it breaks '#/properties/name/pattern'"),
        ('{"age": 3}', "it breaks '#/required'"),
        ('{"name": "Ada", "age": -1}', "it breaks '#/properties/age/minimum'"),
        ('{"name": "Ada", "more": 1}', "it breaks '#/additionalProperties'"),
        ('{"name": "Ada", "x_y": 1}', "it breaks '#/patternProperties/^x_/type'"),
        ('{"name": "Ada", "tags": [1, 1.0]}', "it breaks '#/properties/tags/uniqueItems'"),
        ('{"name": "Ada", "tags": [{}]}', "it breaks '#/properties/tags/items/anyOf'"),
        ("Her name is Ada.", "it is no JSON"),
        ('{"name": "Ada"', "it is no JSON"),
        ('{"name": NaN}', "it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
    ],
)
def test_an_answer_is_told_where_it_breaks_the_schema(answer: str, wrong: str | None) -> None:
    """The place is the schema's, so that no text of the answer comes into an error or a log."""
    assert read_output_schema(json.dumps(_PERSON)).violation(answer) == wrong


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ("[]", "JSON object, got list"),
        ("{", "must be a JSON object"),
        ('{"a": "\\ud800"}', "must be a JSON object in UTF-8"),
        ('{"minimum": NaN}', "must be a JSON object"),
        ('{"type": "text"}', "no JSON schema"),
        ('{"$schema": "http://json-schema.org/draft-07/schema#"}', "draft-07"),
        ('{"$ref": "https://example.com/schema"}', "refer to itself alone"),
        ('{"$ref": "#/$defs/missing"}', "#/$defs/missing"),
        ('{"$ref": "#/title", "title": "a"}', "which is no schema"),
        ('{"properties": {"a": {"$id": "https://example.com/"}}}', "$id"),
        ('{"$dynamicRef": "#a"}', "$dynamicRef"),
        ('{"pattern": "(a)\\\\1"}', "linear time"),
        ('{"patternProperties": {"(?=a)": true}}', "linear time"),
        ('{"pattern": "((a{1,99}){1,99}){1,99}"}', "linear time"),
        ('{"patternProperties": {"a": true}, "unevaluatedProperties": false}', "additionalProperties"),
        ("[" * 60_000, "nested sensibly"),
        ('{"items":' * 70 + "{}" + "}" * 70, "at most 64 deep"),
        ('{"description": "' + "a" * MAX_SCHEMA_BYTES + '"}', "at most 65536 bytes"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused(schema: str, told: str) -> None:
    """By field, with what is wrong, before anything is asked of an engine."""
    with pytest.raises(InvalidRequest) as raised:
        read_output_schema(schema, field="question.output_schema")
    assert raised.value.field == "question.output_schema"
    assert told in raised.value.message


def test_data_in_a_schema_is_no_keyword() -> None:
    """What stands under const, enum, default or examples refers to nothing."""
    schema = read_output_schema('{"const": {"$ref": "https://example.com", "pattern": "(?=a)"}}')
    assert schema.violation('{"$ref": "https://example.com", "pattern": "(?=a)"}') is None


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({"$ref": "#/$defs/d60", "$defs": {"d0": {}} | {
            f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level - 1}"}] * 2} for level in range(1, 61)}}, "1"),
        ({"items": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}, "[" * 60 + "]" * 60),
        ({"$ref": "#"}, "1"),
    ],
)  # fmt: skip
def test_a_check_that_would_never_end_is_cut_short(schema: dict[str, Any], answer: str) -> None:
    """A schema whose check doubles with each level, or goes round in circles, costs bounded time."""
    begun_s = time.thread_time()
    told = read_output_schema(json.dumps(schema)).violation(answer)
    assert told is not None
    assert "bounds" in told
    assert time.thread_time() - begun_s < 4 * MAX_CHECK_S


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/const", "const": {"type": 5}},
        {"$ref": "#/const", "const": {"$ref": "https://example.com/"}},
        {"$ref": "#/const", "const": {"pattern": "(?=a)"}},
        {"$ref": "#/properties", "properties": {"type": {}}},
        {"$ref": "#/$defs", "$defs": {"items": {}, "allOf": True}},
    ],
)
def test_a_reference_to_what_is_no_schema_fails_no_worse_than_an_answer(schema: dict[str, Any]) -> None:
    """Data may look like a schema and is not checked as one: the answer is wrong then, and the service is well."""
    assert read_output_schema(json.dumps(schema)).violation('["a"]') is not None


def test_a_pattern_takes_linear_time() -> None:
    """An expression that makes a backtracking matcher hang is done at once."""
    begun_s = time.thread_time()
    assert read_output_schema('{"pattern": "^(a+)+$"}').violation(json.dumps("a" * 30_000 + "b")) is not None
    assert time.thread_time() - begun_s < MAX_CHECK_S


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 0.5, "", "a", "Ada"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "x_y", "age"]), inner),
    max_leaves=8,
)
_SCHEMAS = st.sampled_from(
    [
        _PERSON,
        {"uniqueItems": True},
        {"additionalProperties": {"type": ["integer", "null"]}, "properties": {"name": True}},
        {"patternProperties": {"e$": {"type": "number"}}, "additionalProperties": {"uniqueItems": True}},
        {"unevaluatedProperties": False, "anyOf": [{"properties": {"age": True}}, {"minProperties": 1}]},
    ]
)


@given(_SCHEMAS, _VALUES)
def test_answers_are_judged_as_the_reference_does(schema: dict[str, Any], value: Any) -> None:
    """What is replaced for the sake of time decides as jsonschema's own checks do."""
    told = read_output_schema(json.dumps(schema)).violation(json.dumps(value))
    assert (told is None) == Draft202012Validator(schema).is_valid(value)
