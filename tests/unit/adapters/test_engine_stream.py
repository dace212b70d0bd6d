"""Server-sent events are read byte by byte, however the stream is cut, and stop texts taken out of what they say."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.adapters.engine_stream import EventReader, read_tokens
from servicekit.adapters.stop_texts import StopTexts
from servicekit.domain.generation import TokenEvent, TokenLogprob
from servicekit.errors import BackendUnavailable

_ODD = st.text(alphabet="ab\u2028\u2029\x85é日\u2027\u202a€ \r\n", max_size=60)


def _cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def _feed_all(reader: EventReader, parts: list[bytes]) -> None:
    for part in parts:
        reader.feed(part)


@given(st.lists(_ODD, max_size=5), st.lists(st.integers(0, 500), max_size=12), st.sampled_from(["\n", "\r\n"]))
def test_events_survive_any_cutting(texts: list[str], cuts: list[int], line_end: str) -> None:
    """Each event comes once, whole and in order, with Unicode's own line ends inside."""
    events = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    data = "".join(f": keep-alive{line_end}{line_end}data:{event}{line_end}{line_end}" for event in events).encode()
    reader = EventReader()
    read = [event for piece in _cut(data, cuts) for event in reader.feed(piece)]
    assert [json.loads(event)["text"] for event in read] == texts


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: one\n\n", [b"one"]),
        (b"data:one\n\n", [b"one"]),
        (b"data:  one\n\n", [b" one"]),
        (b"event: x\nid: 1\ndata: one\ndata: two\n\n", [b"one\ntwo"]),
        (b"data:\n\n", [b""]),
        (b"\n\n:\n\nretry: 3\n\n", []),
        (b"data: [DONE]\r\n\r\n", [b"[DONE]"]),
        (b"data: never ended", []),
        (b"data: never ended\n", []),
    ],
)
def test_fields_are_read_as_the_specification_says(stream: bytes, events: list[bytes]) -> None:
    """One blank after the colon is no data, lines of data are joined, and an event ends with a blank line."""
    assert EventReader().feed(stream) == events


@pytest.mark.parametrize("part", [b"x" * 1_000_000, b"data: " + b"x" * 1_000_000 + b"\n"])
def test_event_without_end_is_given_up(part: bytes) -> None:
    """A stream that never ends an event does not fill the memory."""
    reader = EventReader()
    with pytest.raises(ValueError, match="at most 4194304 bytes"):
        _feed_all(reader, [part] * 8)


@given(
    st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=20),
    st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=4),
)
def test_stop_texts_cut_as_if_the_text_were_whole(pieces: list[str], stop: list[str]) -> None:
    """However a text is cut into tokens, it ends before the first stop text that is complete, and not before."""
    stops = StopTexts(tuple(stop))
    released = "".join(stops.feed(piece) for piece in pieces) + stops.rest()
    whole = ""
    for piece in pieces:
        whole += piece
        ends = [whole.index(mark) for mark in stop if mark in whole]
        if ends:
            assert released == whole[: min(ends)]
            return
    assert released == whole


class _Letters:
    """A format of which every byte is a token, `!` an error and `.` the end."""

    def __init__(self) -> None:
        self.ended = False

    def read(self, data: bytes) -> list[TokenEvent]:
        """See `TokenReader`."""
        if data == b"!":
            raise BackendUnavailable("it broke", reason="GENERATION_FAILED")
        self.ended = data == b"."
        return [TokenEvent(data.decode(), 1, (TokenLogprob(data.decode(), -1.0),))]


def test_tokens_that_came_together_are_one_event() -> None:
    """Text, number and probabilities are those of all; what follows the end is left."""
    token, failure = read_tokens([b"a", b"b", b".", b"!"], _Letters())
    told = tuple(TokenLogprob(text, -1.0) for text in "ab.")
    assert (token, failure) == (TokenEvent("ab.", 3, told), None)


def test_tokens_before_an_error_are_kept() -> None:
    """They came, so they count, though the error came with them."""
    token, failure = read_tokens([b"a", b"!", b"b"], _Letters())
    assert token is not None
    assert token.text == "a"
    assert isinstance(failure, BackendUnavailable)


def test_an_event_without_tokens_is_none() -> None:
    """Nothing is told of it."""
    assert read_tokens([], _Letters()) == (None, None)
