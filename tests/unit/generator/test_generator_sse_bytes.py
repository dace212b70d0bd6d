"""What passes between a TGI node and the client is put right byte by byte, however it is cut into pieces."""

import json

from hypothesis import given
from hypothesis import strategies as st

from servicekit.adapters.stop_texts import StopTexts
from servicekit.adapters.tgi.transport import escape_line_separators, split_partial

_ODD = st.text(alphabet="ab\u2028\u2029\x85é日\u2027\u202a€ ", max_size=60)


def _cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@given(_ODD, st.lists(st.integers(0, 500), max_size=12))
def test_frames_survive_any_cutting(text: str, cuts: list[int]) -> None:
    """The JSON of a frame means the same afterwards, and stands in one line."""
    data = json.dumps({"text": text}, ensure_ascii=False).encode()
    held, out = b"", b""
    for piece in _cut(data, cuts):
        whole, held = split_partial(held + piece)
        out += escape_line_separators(whole)
    out += held
    assert json.loads(out) == {"text": text}
    assert len(out.decode().splitlines()) == 1


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
