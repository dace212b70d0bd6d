"""Texts and names as Weaviate is given them: nothing is lost, nothing is mistaken for something else."""

import re

from hypothesis import given
from hypothesis import strategies as st

from servicekit.adapters.weaviate.naming import (
    containing_pattern,
    order_key,
    property_name,
    tenant_name,
    text_key,
)
from servicekit.domain.filter import FieldKind

_odd = st.text(alphabet=st.sampled_from("\x00\x01\x02\x03\x04\t\n\r )*+>?@=aAb\u00a0é"), max_size=5)
_texts = st.one_of(_odd, st.text(max_size=8))


def _like(pattern: str, key: str) -> bool:
    """As Weaviate reads a pattern: two wildcards, neither of which crosses the end of a line."""
    expression = re.escape(pattern).replace(re.escape("*"), ".*").replace(re.escape("?"), ".")
    return re.fullmatch(expression, key) is not None


@given(left=_texts, right=_texts)
def test_keys_are_equal_and_ordered_as_their_texts(left: str, right: str) -> None:
    """Comparing keys is comparing texts, by code point."""
    assert (text_key(left) == text_key(right)) == (left == right)
    assert (text_key(left) < text_key(right)) == (left < right)
    assert (order_key(left) < order_key(right)) == (left.encode() < right.encode())


@given(part=_texts, text=_texts)
def test_a_pattern_matches_the_texts_that_hold_the_part(part: str, text: str) -> None:
    """Wildcards, line ends and spaces in the part or the text stand for themselves."""
    assert _like(containing_pattern(part), text_key(text)) == (part in text)
    assert _like(containing_pattern(part), text_key(text + part + text))


@given(text=_texts)
def test_a_key_survives_trimming(text: str) -> None:
    """Weaviate takes spaces off both ends of a term, and knows no empty one."""
    assert text_key(text) == text_key(text).strip() != ""
    assert not set("*?\n") & set(text_key(text))


@given(
    names=st.sets(st.one_of(st.sampled_from(["a", "A", "_a", "_A", "a_", "aA", "Aa"]), _texts), min_size=2, max_size=6)
)
def test_names_stay_apart_in_small_letters(names: set[str]) -> None:
    """Property and tenant names are valid for Weaviate, and different even where it looks past case."""
    properties = [property_name(name, FieldKind.TEXT).lower() for name in names]
    assert len(set(properties)) == len(names)
    assert all(re.fullmatch(r"[_A-Za-z][_0-9A-Za-z]{0,230}", name) for name in properties)
    tenants = [tenant_name(name) for name in names]
    assert len(set(tenants)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in tenants)


def test_kinds_have_properties_of_their_own() -> None:
    """A field that is a number for one tenant and a text for another is two properties."""
    assert len({property_name("size", kind) for kind in FieldKind}) == len(FieldKind)
    assert property_name("_title", FieldKind.TEXT) == "d_title"
