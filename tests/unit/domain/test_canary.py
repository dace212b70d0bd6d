"""Tests of canaries: the same for a key, another for another, and nothing without a real key."""

import pytest

from servicekit.domain.canary import CANARY_LETTERS, canary_of
from servicekit.errors import InvalidRequest


def test_a_key_has_one_canary() -> None:
    """Generator and guardrail get the same word from the same key, and no other key gives it."""
    canary = canary_of(b"k" * 32)
    assert canary == canary_of(b"k" * 32)
    assert canary != canary_of(b"l" * 32)
    assert len(canary) == CANARY_LETTERS
    assert canary.isalpha()
    assert canary.islower()


def test_a_short_key_is_refused() -> None:
    """A key that could be guessed makes no canary."""
    with pytest.raises(InvalidRequest, match="at least 16 bytes, got 5"):
        canary_of(b"short")
