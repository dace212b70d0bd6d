"""The HTTP transport under huggingface_hub's client, which puts right what it gets wrong about a TGI node.

Used by `engine.py`.
"""

import re
from collections.abc import AsyncIterator

import httpx2

_LINE_SEPARATORS = re.compile(rb"\xe2\x80[\xa8\xa9]|\xc2\x85")
_ESCAPES = {b"\xe2\x80\xa8": b"\\u2028", b"\xe2\x80\xa9": b"\\u2029", b"\xc2\x85": b"\\u0085"}
_PARTIAL = (b"\xe2\x80", b"\xe2", b"\xc2")


class NodeTransport(httpx2.AsyncBaseTransport):
    """Wraps a transport in two ways.

    The client splits lines wherever `str.splitlines` does, also at U+2028, U+2029 and U+0085 inside a token,
    which TGI sends raw: they are escaped as JSON escapes them. And it adds the machine's own Hugging Face
    token to a request that names none: it is taken off, so that no node is sent it.
    """

    def __init__(self, inner: httpx2.AsyncBaseTransport, *, api_key: str | None) -> None:
        self._inner = inner
        self._api_key = api_key

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request."""
        if self._api_key is None:
            request.headers.pop("authorization", None)
        else:
            request.headers["authorization"] = f"Bearer {self._api_key}"
        response = await self._inner.handle_async_request(request)
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _SafeLines(response.stream)
        return response

    async def aclose(self) -> None:
        """Close the wrapped transport's connections."""
        await self._inner.aclose()


class _SafeLines(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        held = b""
        async for data in self._inner:
            whole, held = split_partial(held + data)
            if whole:
                yield escape_line_separators(whole)
        if held:
            yield held

    async def aclose(self) -> None:
        await self._inner.aclose()


def escape_line_separators(data: bytes) -> bytes:
    """The bytes with Unicode's own line separators as JSON escapes."""
    return _LINE_SEPARATORS.sub(lambda match: _ESCAPES[match.group()], data)


def split_partial(data: bytes) -> tuple[bytes, bytes]:
    """The bytes, and the end of them that may be the beginning of a separator."""
    for tail in _PARTIAL:
        if data.endswith(tail):
            return data[: -len(tail)], tail
    return data, b""
