"""Request ids verify for their tenant only; derived ids depend on every part."""

import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.domain.ids import RequestIds, derive_id

_KEY = b"k" * 32


def test_a_genuine_id_verifies_for_its_tenant_only() -> None:
    """An id made for one tenant is foreign to every other."""
    ids = RequestIds([_KEY])
    made = ids.new("acme")
    assert ids.verify(made, "acme")
    assert not ids.verify(made, "globex")
    assert not ids.verify(made, "")


def test_replicas_with_the_same_key_verify_each_others_ids() -> None:
    """Verification needs the key and nothing else."""
    assert RequestIds([_KEY]).verify(RequestIds([_KEY]).new("acme"), "acme")
    assert not RequestIds([b"z" * 32]).verify(RequestIds([_KEY]).new("acme"), "acme")


def test_an_older_key_still_verifies() -> None:
    """After a rotation the ids signed before stay genuine."""
    old = RequestIds([_KEY]).new("acme")
    rotated = RequestIds([b"n" * 32, _KEY])
    assert rotated.verify(old, "acme")
    assert not RequestIds([_KEY]).verify(rotated.new("acme"), "acme")


def test_ids_sort_by_time() -> None:
    """Ids made later sort later, to the millisecond."""
    ids = RequestIds([_KEY])
    first = ids.new("t")
    start = time.monotonic()
    while time.monotonic() - start < 0.003:
        pass
    assert first < ids.new("t")


@given(st.text(max_size=80))
def test_no_text_verifies_by_chance(text: str) -> None:
    """Arbitrary text is refused, whatever it contains."""
    assert not RequestIds([_KEY]).verify(text, "acme")


@given(st.integers(0, 52), st.characters(min_codepoint=33, max_codepoint=126))
def test_any_changed_character_is_refused(position: int, character: str) -> None:
    """An id altered at any one place no longer verifies."""
    ids = RequestIds([_KEY])
    made = ids.new("acme")
    forged = made[:position] + character + made[position + 1 :]
    assert ids.verify(forged, "acme") == (forged == made)


def test_a_short_key_is_refused() -> None:
    """A key too short to sign with is an error at construction."""
    with pytest.raises(ValueError, match="16 bytes"):
        RequestIds([b"short"])


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_derived_ids_are_equal_only_for_equal_parts(first: list[str], second: list[str]) -> None:
    """The same parts give the same UUID, other parts another."""
    assert (derive_id(*first) == derive_id(*second)) == (first == second)


def test_derived_id_is_a_valid_uuid() -> None:
    """A derived id is a version 8 UUID of the RFC variant."""
    parsed = uuid.UUID(derive_id("a", "b"))
    assert parsed.version == 8
    assert parsed.variant == uuid.RFC_4122
