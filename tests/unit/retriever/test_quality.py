"""What is worth indexing: repetition, navigation, language, likeness."""

from pydoc_data.topics import topics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retriever.formats.html_text import parse_html
from services.retriever.formats.plain_text import parse_plain_text
from services.retriever.ingestion.quality import find_boilerplate, find_language, likeness, shingles

ENGLISH = "The moon pulls the water of the sea towards it, and so the sea rises and falls twice a day in most ports. "
GERMAN = (
    "Der Mond zieht das Wasser des Meeres an, und so steigt und fällt das Meer zweimal am Tag in den meisten Häfen. "
)
JAPANESE = "月は海の水を引き寄せるので、海は一日に二回上がったり下がったりする。ほとんどの港ではそうである。"


def test_boilerplate_is_told_from_text() -> None:
    """Lines that repeat, pages of links and a handful of words over and over are noticed; prose is not."""
    assert not any(find_boilerplate(parse_plain_text(text)) for text in topics.values())
    assert "lines" in find_boilerplate(parse_plain_text("Home | About\nContact | Imprint\n" * 40))
    links = "".join(f'<li><a href="/{number}">Chapter {number} of the pilot book</a></li>' for number in range(60))
    assert "links" in find_boilerplate(parse_html(f"<ul>{links}</ul><p>Read on.</p>"))
    assert "different" in find_boilerplate(parse_plain_text("buy now cheap " * 200))


@pytest.mark.parametrize(
    ("text", "language"),
    [(ENGLISH * 2, "en"), (GERMAN * 2, "de"), (JAPANESE, "ja"), ("Too short.", ""), ("12 34 56 " * 200, "")],
)
def test_the_language_is_told_where_there_is_enough(text: str, language: str) -> None:
    """Long enough text has its code; numbers and a few words have none."""
    assert find_language(text) == language


@given(st.lists(st.text(max_size=80), max_size=5), st.lists(st.text(max_size=80), max_size=5))
def test_likeness_is_symmetric_and_bounded(one: list[str], other: list[str]) -> None:
    """A text is wholly like itself; the order of the two is no matter."""
    left, right = shingles(one), shingles(other)
    assert likeness(left, right) == likeness(right, left)
    assert 0.0 <= likeness(left, right) <= 1.0
    assert not left or likeness(left, left) == 1.0


def test_a_small_change_leaves_texts_alike() -> None:
    """One sentence more is nearly the same; another text is not."""
    text = " ".join(f"Station {number} reports wind from the north." for number in range(60))
    assert likeness(shingles([text]), shingles([text + " One more."])) > 0.9
    assert likeness(shingles([text]), shingles([ENGLISH])) < 0.1
