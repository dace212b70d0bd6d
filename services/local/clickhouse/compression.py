"""Content encodings of ClickHouse's HTTP interface: gzip, deflate, zstd and lz4 frames, both ways.

Pure; used by `services.local.clickhouse.http`.
"""

import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

import lz4.frame  # type: ignore[import-untyped]  # ships no stubs

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


_PIECE_BYTES = 1 << 20


class UnknownEncodingError(ValueError):
    """A Content-Encoding that is not spoken here."""


class StreamCompressor(Protocol):
    """Compresses a response chunk by chunk; every chunk is flushed, so that a reader need not wait."""

    def compress(self, data: bytes) -> bytes:
        """The bytes to send for `data`."""
        ...

    def finish(self) -> bytes:
        """The closing bytes."""
        ...


class BodyDecoder:
    """Decodes a request body piece by piece, every frame of it: drivers compress each block into one of its own."""

    def __init__(self, encoding: str) -> None:
        """Ready for the first bytes.

        Raises:
            UnknownEncodingError: the encoding is not spoken here.
        """
        self._name = encoding.strip().lower()
        opener = _DECODERS.get(self._name)
        if opener is None:
            known = ", ".join(_DECODERS)
            raise UnknownEncodingError(f"Content-Encoding {encoding!r} is not supported: use one of {known}")
        self._open = opener
        self._frame: _Frame | None = None

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Pieces of at most 1 MiB, so that a small body that decodes to a huge one can be stopped on the way.

        Raises:
            UnknownEncodingError: the body is not in its encoding.
        """
        while data or self._frame is not None:
            frame = self._frame = self._frame or self._open()
            try:
                piece = frame.decompress(data, _PIECE_BYTES)
            except (OSError, EOFError, ValueError, RuntimeError, zlib.error, zstd.ZstdError) as error:
                raise UnknownEncodingError(f"the body is not valid {self._name}: {error}") from error
            if piece:
                yield piece
            data = b""
            if frame.eof:
                data, self._frame = frame.unused_data or b"", None
            elif frame.needs_input:
                return

    def finish(self) -> None:
        """Check that nothing is missing.

        Raises:
            UnknownEncodingError: the last frame is cut off.
        """
        if self._frame is not None:
            raise UnknownEncodingError(f"the body is not valid {self._name}: the last frame is cut off")


def negotiate(accept_encoding: str) -> str | None:
    """The first encoding of the client's list that is spoken here; its order is its preference."""
    for item in accept_encoding.split(","):
        name, _, parameters = item.strip().lower().partition(";")
        if name.strip() in _COMPRESSORS and "q=0" not in parameters.replace(" ", "").split(";"):
            return name.strip()
    return None


def open_compressor(encoding: str) -> StreamCompressor:
    """A fresh compressor for one response; `encoding` comes from `negotiate`."""
    return _COMPRESSORS[encoding]()


class _ZlibCompressor:
    def __init__(self, wbits: int) -> None:
        self._inner = zlib.compressobj(level=1, wbits=wbits)

    def compress(self, data: bytes) -> bytes:
        return self._inner.compress(data) + self._inner.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._inner.flush()


class _ZstdCompressor:
    def __init__(self) -> None:
        self._inner = zstd.ZstdCompressor(level=1)

    def compress(self, data: bytes) -> bytes:
        return self._inner.compress(data, zstd.ZstdCompressor.FLUSH_BLOCK)

    def finish(self) -> bytes:
        return self._inner.flush()


class _Lz4Compressor:
    def __init__(self) -> None:
        self._inner = lz4.frame.LZ4FrameCompressor(auto_flush=True)
        self._head: bytes = self._inner.begin()

    def compress(self, data: bytes) -> bytes:
        head, self._head = self._head, b""
        return head + bytes(self._inner.compress(data))

    def finish(self) -> bytes:
        head, self._head = self._head, b""
        return head + bytes(self._inner.flush())


class _Frame(Protocol):
    """One compressed frame; `decompress` returns at most `max_length` bytes."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes | None: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _ZlibFrame:
    """zlib's decompressor with the interface of the others."""

    def __init__(self, wbits: int) -> None:
        self._inner = zlib.decompressobj(wbits)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        piece = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self.needs_input = not self._inner.unconsumed_tail and len(piece) < max_length
        return piece


_GZIP_WBITS = 31
_DECODERS: dict[str, Callable[[], _Frame]] = {
    "gzip": lambda: _ZlibFrame(_GZIP_WBITS),
    "deflate": lambda: _ZlibFrame(zlib.MAX_WBITS),
    "zstd": zstd.ZstdDecompressor,
    "lz4": lz4.frame.LZ4FrameDecompressor,
}
_COMPRESSORS: dict[str, Callable[[], StreamCompressor]] = {
    "gzip": lambda: _ZlibCompressor(_GZIP_WBITS),
    "deflate": lambda: _ZlibCompressor(zlib.MAX_WBITS),
    "zstd": _ZstdCompressor,
    "lz4": _Lz4Compressor,
}
