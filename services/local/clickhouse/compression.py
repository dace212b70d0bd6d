"""Content encodings of ClickHouse's HTTP interface: gzip, deflate, zstd and lz4 frames, both ways.

Pure; used by `services.local.clickhouse.http`.
"""

import gzip
import sys
import zlib
from collections.abc import Callable
from typing import Protocol

import lz4.frame  # type: ignore[import-untyped]  # ships no stubs

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


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


def decompress(body: bytes, encoding: str) -> bytes:
    """A request body as the client meant it.

    Raises:
        UnknownEncodingError: the encoding is not spoken here, or the body is not in it.
    """
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        return body
    decode = _DECODERS.get(name)
    if decode is None:
        raise UnknownEncodingError(f"Content-Encoding {encoding!r} is not supported: use one of {', '.join(_DECODERS)}")
    try:
        return decode(body)
    except (OSError, EOFError, ValueError, RuntimeError, zlib.error, zstd.ZstdError) as error:
        raise UnknownEncodingError(f"the body is not valid {name}: {error}") from error


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


def _decompress_lz4(body: bytes) -> bytes:
    """All frames of the body: drivers compress each block into a frame of its own."""
    parts: list[bytes] = []
    while body:
        decompressor = lz4.frame.LZ4FrameDecompressor()
        parts.append(decompressor.decompress(body))
        if not decompressor.eof:
            raise EOFError("the last frame is cut off")
        body = decompressor.unused_data or b""
    return b"".join(parts)


_GZIP_WBITS = 31
_DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "zstd": zstd.decompress,
    "lz4": _decompress_lz4,
}
_COMPRESSORS: dict[str, Callable[[], StreamCompressor]] = {
    "gzip": lambda: _ZlibCompressor(_GZIP_WBITS),
    "deflate": lambda: _ZlibCompressor(zlib.MAX_WBITS),
    "zstd": _ZstdCompressor,
    "lz4": _Lz4Compressor,
}
