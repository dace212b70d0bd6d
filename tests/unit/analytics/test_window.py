"""Windows and page tokens are checked before anything is asked of the store."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.errors import InvalidRequest
from services.analytics.window import Page, Window, make_window, read_page_token

_NOW = datetime(2026, 5, 1, tzinfo=UTC)
_TIMES = st.datetimes(timezones=st.just(UTC))


def test_the_default_window_is_the_last_day() -> None:
    """Nothing said means the last 24 hours."""
    assert make_window(None, None, now=_NOW) == Window(_NOW - timedelta(hours=24), _NOW)


@pytest.mark.parametrize(
    ("start", "end"), [(_NOW, _NOW), (_NOW + timedelta(seconds=1), None), (_NOW - timedelta(days=401), _NOW)]
)
def test_a_window_that_cannot_be_is_refused(start: datetime, end: datetime | None) -> None:
    """Empty, backward and too long windows are the caller's mistake, named by field."""
    with pytest.raises(InvalidRequest) as caught:
        make_window(start, end, now=_NOW)
    assert caught.value.field == "start_time"


@given(times=st.tuples(_TIMES, _TIMES, _TIMES), texts=st.tuples(st.text(), st.text(), st.text()))
def test_a_page_survives_its_token(times: tuple[datetime, ...], texts: tuple[str, ...]) -> None:
    """A token holds all that the next page needs, so that it does not shift with the clock."""
    page = Page(Window(times[0], times[1]), texts[0], texts[1], times[2], texts[2])
    assert read_page_token(page.token()) == page


@given(st.text(min_size=1))
def test_a_made_up_token_is_refused(token: str) -> None:
    """A token that no answer held is the caller's mistake."""
    with pytest.raises(InvalidRequest) as caught:
        read_page_token(token)
    assert caught.value.field == "page_token"
