"""Citations of JSON answers are looked for in their strings alone."""

import json

from hypothesis import given
from hypothesis import strategies as st

from services.generator.json_answers import citable

_JSON = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


def test_only_strings_are_left() -> None:
    """Lists of numbers, which look like markers, are blanked; what is quoted stays where it was."""
    assert citable('{"a": "x [1]", "b": [2]}') == ' "a"  "x [1]"  "b"      '


def test_an_escaped_quote_ends_no_string() -> None:
    """The marker behind it is still within the string."""
    text = r'["say \"six\" [1]", [2], "back\\", [3]]'
    assert [mark in citable(text) for mark in ("[1]", "[2]", "[3]")] == [True, False, False]


def test_an_answer_cut_off_in_a_string_is_no_trouble() -> None:
    """It breaks its schema anyway; looking through it takes time in proportion to its length."""
    text = '"\\' * 50_000
    assert len(citable(text)) == len(text)


@given(_JSON)
def test_places_stay_the_same(value: object) -> None:
    """Every character is either kept at its place or blank, so that spans are those of the answer."""
    text = json.dumps(value, ensure_ascii=False)
    blanked = citable(text)
    assert len(blanked) == len(text)
    assert all(kept in (was, " ") for kept, was in zip(blanked, text, strict=True))
