"""Tests of reading texts into features: one by one and together they are the same."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.guardrail.text_features import MAX_CHARS, FeatureSettings, TextReader

_READER = TextReader(FeatureSettings(bits=10))
_TEXTS = st.lists(st.text(st.sampled_from("abé1_ \n\t.!?😀"), max_size=30) | st.text(max_size=20), max_size=12)


@given(_TEXTS)
@settings(max_examples=150, deadline=None)
def test_texts_read_together_have_the_features_that_each_has_alone(texts: list[str]) -> None:
    """No word pair and no run of characters reaches from one text into the next."""
    together = _READER.read_all(texts)
    for row, text in enumerate(texts):
        alone = _READER.read(text)
        own = together.rows == row
        assert together.places[own].tolist() == alone.places.tolist()
        assert np.array_equal(together.values[own], alone.values)


def test_texts_that_do_not_fit_together_are_read_in_groups() -> None:
    """Each is read up to its own bound, whatever stands beside it."""
    texts = ["ab " * (MAX_CHARS // 3 + 10), "cd " * 6_000, "ef", "gh " * 20]
    together = _READER.read_all(texts)
    assert sorted(set(together.rows.tolist())) == [0, 1, 2, 3]
    assert together.places[together.rows == 0].tolist() == _READER.read(texts[0][:MAX_CHARS]).places.tolist()


def test_nothing_has_no_features() -> None:
    """An empty text and no text at all are both read."""
    assert not len(_READER.read("").places)
    assert not len(_READER.read_all([]).rows)
