"""Bodies of the embedded ClickHouse survive every content encoding, in pieces and in several frames."""

import gzip

import lz4.frame  # type: ignore[import-untyped]  # ships no stubs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.local.clickhouse.compression import BodyDecoder, UnknownEncodingError, negotiate, open_compressor

_ENCODINGS = ("gzip", "deflate", "zstd", "lz4")


def _decoded(body: bytes, encoding: str, *, step: int = 7) -> bytes:
    decoder = BodyDecoder(encoding)
    pieces = [piece for at in range(0, len(body), step) for piece in decoder.decode(body[at : at + step])]
    decoder.finish()
    return b"".join(pieces)


@pytest.mark.parametrize("encoding", _ENCODINGS)
@given(chunks=st.lists(st.binary()))
def test_chunks_come_back_as_they_went(encoding: str, chunks: list[bytes]) -> None:
    """A response compressed chunk by chunk is one valid body."""
    compressor = open_compressor(encoding)
    body = b"".join([*(compressor.compress(chunk) for chunk in chunks), compressor.finish()])
    assert _decoded(body, encoding) == b"".join(chunks)


@given(blocks=st.lists(st.binary(min_size=1), min_size=1))
def test_every_frame_of_a_body_is_read(blocks: list[bytes]) -> None:
    """Drivers send each block of an insert as a frame of its own: none may be lost."""
    assert _decoded(b"".join(lz4.frame.compress(block) for block in blocks), "lz4") == b"".join(blocks)
    assert _decoded(b"".join(gzip.compress(block) for block in blocks), "gzip") == b"".join(blocks)


@pytest.mark.parametrize("encoding", [*_ENCODINGS, "br"])
def test_a_body_that_is_not_what_it_says_is_refused(encoding: str) -> None:
    """Rubbish under an encoding's name, or an unknown name, is an error and no empty insert."""
    with pytest.raises(UnknownEncodingError):
        _decoded(b"this is no compressed body", encoding)


def test_a_cut_off_frame_is_refused() -> None:
    """Half a frame is not taken for a short body."""
    whole = lz4.frame.compress(b"x" * 1000)
    with pytest.raises(UnknownEncodingError):
        _decoded(whole[:-6], "lz4")


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [("lz4,zstd,gzip", "lz4"), ("br, gzip;q=1.0", "gzip"), ("identity", None), ("", None), ("gzip;q=0, zstd", "zstd")],
)
def test_the_clients_first_known_encoding_is_taken(accepted: str, chosen: str | None) -> None:
    """The client's order is its preference."""
    assert negotiate(accepted) == chosen


@pytest.mark.parametrize("encoding", _ENCODINGS)
def test_a_small_body_that_decodes_to_a_huge_one_comes_in_pieces(encoding: str) -> None:
    """Whoever counts can stop long before all of it is in memory."""
    compressor = open_compressor(encoding)
    bomb = compressor.compress(bytes(1 << 26)) + compressor.finish()
    pieces = [len(piece) for piece in BodyDecoder(encoding).decode(bomb)]
    assert len(bomb) < 1 << 20
    assert max(pieces) <= 1 << 20
    assert sum(pieces) == 1 << 26
