"""What a question's full-text search is asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retriever.search.keywords import keywords


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("What does a consumer do when it fails?", "consumer fails?"),
        ("how is C++ compiled", "C++ compiled"),
        ("What does the WHO say of IT?", "WHO say IT?"),
        ("WHAT DOES THE CONSUMER DO", "CONSUMER"),
        ("to be or not to be", "to be or not to be"),
        ("日本語 の テキスト", "日本語 の テキスト"),
        ("?!", "?!"),
    ],
)
def test_stop_words_go_and_names_stay(query: str, left: str) -> None:
    """Question words are left out; what remains stands as it was typed; nothing is left empty."""
    assert keywords(query) == left


@given(query=st.text(min_size=1, max_size=60))
def test_a_query_never_becomes_blank(query: str) -> None:
    """Whatever was typed, as much of it is asked for, and asking for that again changes nothing."""
    left = keywords(query)
    assert left.strip() or not query.strip()
    assert keywords(left) == left or left == query
