"""Character sets: what is declared holds, nothing is guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retriever.formats.decoding import UndecodableTextError, decode
from services.retriever.formats.media_types import HTML, TEXT


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=50).filter(lambda t: not t.startswith("\ufeff")))
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-8"])
def test_a_mark_decides(encoding: str, text: str) -> None:
    """Text with a byte-order mark is read by it; without one it is UTF-8."""
    assert decode(text.encode(encoding), media_type=TEXT, charset="") == text


def test_a_declared_charset_holds() -> None:
    """By the media type, or in HTML by its meta element, as the web reads those names."""
    assert decode(b"caf\xe9 \x80", media_type=TEXT, charset="iso-8859-1") == "café €"
    page = b'<html><meta charset="shift_jis"><p>' + "日本".encode("shift_jis")
    assert decode(page, media_type=HTML, charset="").endswith("日本")


@pytest.mark.parametrize(
    ("content", "charset", "reason"),
    [
        (b"caf\xe9", "", "NOT_UTF8"),
        (b"caf\xe9", "klingon", "UNKNOWN_CHARSET"),
        (b"caf\xe9", "base64", "UNKNOWN_CHARSET"),
        (b"caf\xe9", "utf-7", "UNKNOWN_CHARSET"),
        (b"\x81", "shift_jis", "WRONG_CHARSET"),
    ],
)
def test_what_does_not_decode_is_refused(content: bytes, charset: str, reason: str) -> None:
    """No character is replaced or dropped in silence."""
    with pytest.raises(UndecodableTextError) as caught:
        decode(content, media_type=TEXT, charset=charset)
    assert caught.value.reason == reason


@given(content=st.binary(max_size=80), charset=st.sampled_from(["", "utf-16", "big5", "iso-2022-jp", "hz", "cp437"]))
def test_any_bytes_decode_or_are_refused(content: bytes, charset: str) -> None:
    """Whatever the bytes, the result is a text that can be encoded again."""
    try:
        text = decode(content, media_type=HTML, charset=charset)
    except UndecodableTextError:
        text = ""
    assert text.encode().decode() == text
