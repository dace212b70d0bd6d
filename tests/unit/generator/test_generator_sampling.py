"""Sampling settings keep their bounds and fill up from defaults."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.domain.prompt import Sampling
from servicekit.errors import InvalidRequest


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0),
        ("top_p", 1.01),
        ("top_k", 0),
        ("top_k", 1001),
        ("max_output_tokens", 0),
        ("max_output_tokens", 8193),
        ("seed", -1),
        ("frequency_penalty", 2.5),
        ("presence_penalty", -2.5),
        ("stop", ("a",) * 5),
    ],
)
def test_out_of_bounds_is_refused_by_field(name: str, value: Any) -> None:
    """A value out of its bounds names its field."""
    with pytest.raises(InvalidRequest) as raised:
        Sampling(**{name: value})
    assert raised.value.field == f"sampling.{name}"


@pytest.mark.parametrize("stop", ["", "x" * 65])
def test_stop_texts_have_a_length(stop: str) -> None:
    """An empty or long stop text names its place."""
    with pytest.raises(InvalidRequest) as raised:
        Sampling(stop=("ok", stop))
    assert raised.value.field == "sampling.stop[1]"


@given(
    st.builds(Sampling, temperature=st.none() | st.floats(0, 2), top_k=st.none() | st.integers(1, 1000)),
    st.builds(Sampling, temperature=st.none() | st.floats(0, 2), top_k=st.none() | st.integers(1, 1000)),
)
def test_what_is_set_wins_over_defaults(mine: Sampling, defaults: Sampling) -> None:
    """Each setting is the caller's where there is one, 0 included, else the default."""
    merged = mine.over(defaults)
    assert merged.temperature == (defaults.temperature if mine.temperature is None else mine.temperature)
    assert merged.top_k == (defaults.top_k if mine.top_k is None else mine.top_k)
