"""HTTP/1.1 over asyncio transports, no more of it than a model server's contract needs.

Under `server.py`; written by hand because the contract server must cut, stall and refuse at the byte level.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

_MAX_HEAD_BYTES = 65_536
_MAX_BODY_BYTES = 33_554_432


@dataclass(frozen=True, slots=True)
class Request:
    """One request, its body read to the end; header names are lower-case."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    query: Mapping[str, str] = field(default_factory=dict)


class Response:
    """Writes one response: `json` or `text` at once, or `start_stream`, `write`…, `end_stream`.

    `lost_at_s` is when, by the monotonic clock, the caller was seen to have gone; `is_cut` says that we hung up.
    """

    def __init__(self, transport: asyncio.Transport, writable: asyncio.Event) -> None:
        self._transport = transport
        self._writable = writable
        self._byte_s = 0.0
        self._held = bytearray()
        self._dripped = asyncio.Event()
        self._dripped.set()
        self.lost_at_s: float | None = None
        self.is_cut = False

    def json(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """A whole JSON response."""
        encoded = json.dumps(body, ensure_ascii=False).encode()
        self.whole(status, encoded, {"content-type": "application/json", **(headers or {})})

    def text(self, status: int, body: str) -> None:
        """A whole plain response."""
        self.whole(status, body.encode(), {"content-type": "text/plain; charset=utf-8"})

    def whole(self, status: int, body: bytes, fields: Mapping[str, str], *, length: int | None = None) -> None:
        """A whole response of any kind; a `length` that is not the body's promises what never comes."""
        length = len(body) if length is None else length
        self._put(_head(status, {**fields, "content-length": str(length)}) + body)

    def start_stream(self, headers: Mapping[str, str] | None = None) -> None:
        """The head of a chunked stream of server-sent events; always 200."""
        fields = {"content-type": "text/event-stream", "transfer-encoding": "chunked", **(headers or {})}
        self._put(_head(200, fields))

    def write(self, data: bytes) -> None:
        """One chunk, kept in memory while the reader is slow; nothing for no data, which would end the stream."""
        if data:
            self._put(b"%x\r\n%b\r\n" % (len(data), data))

    async def send(self, data: bytes) -> None:
        """One chunk; waits while the reader is slow."""
        self.write(data)
        await asyncio.sleep(0)
        await self._writable.wait()

    def end_stream(self) -> None:
        """The last, empty chunk."""
        self._put(b"0\r\n\r\n")

    def cut(self) -> None:
        """Reset the connection, whatever was promised."""
        self.is_cut = True
        self._transport.abort()

    def finish(self) -> None:
        """Close the connection in order, whatever was promised."""
        self.is_cut = True
        self._transport.close()

    def drip(self, byte_s: float) -> None:
        """From now on send one byte each `byte_s` seconds."""
        self._byte_s = byte_s

    async def drained(self) -> None:
        """Return once every byte that drips has been handed over."""
        await self._dripped.wait()

    def _put(self, data: bytes) -> None:
        if self._byte_s <= 0:
            self._transport.write(data)
            return
        self._held += data
        if self._dripped.is_set():
            self._dripped.clear()
            self._drip_next()

    def _drip_next(self) -> None:
        if not self._held or self._transport.is_closing():
            self._dripped.set()
            return
        self._transport.write(self._held[:1])
        del self._held[:1]
        asyncio.get_running_loop().call_later(self._byte_s, self._drip_next)


Handler = Callable[[Request, Response], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One keep-alive connection: requests are handled in turn; a hang-up cancels the one in hand."""

    def __init__(self, handle: Handler, peers: "set[Connection]") -> None:
        self._handle = handle
        self._peers = peers
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._response: Response | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer on."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._peers.add(self)

    async def close(self) -> None:
        """Cancel the request in hand and drop the connection."""
        if self._transport is not None:
            self._transport.abort()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def data_received(self, data: bytes) -> None:
        """Collect bytes; start the next request once it is whole."""
        self._buffer += data
        self._start_next()

    def eof_received(self) -> bool:
        """A half-closed connection is closed whole, which cancels the request in hand."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller went away: cancel what it asked for."""
        del exc
        self._transport = None
        self._peers.discard(self)
        if self._task is not None:
            if self._response is not None:
                self._response.lost_at_s = time.monotonic()
            self._task.cancel()

    @property
    def is_busy(self) -> bool:
        """Whether a request is in hand."""
        return self._task is not None

    def pause_writing(self) -> None:
        """The caller reads slowly."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The caller has caught up."""
        self._writable.set()

    def _start_next(self) -> None:
        if self._task is not None or self._transport is None:
            return
        try:
            request = _take_request(self._buffer)
        except ValueError:
            self._transport.abort()
            return
        if request is None:
            return
        self._response = Response(self._transport, self._writable)
        self._task = asyncio.ensure_future(self._run(request, self._response))
        self._task.add_done_callback(self._finished)

    async def _run(self, request: Request, response: Response) -> None:
        await self._handle(request, response)
        await response.drained()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is not None and self._transport is not None:
            self._transport.abort()
        self._start_next()


def _take_request(buffer: bytearray) -> Request | None:
    """Remove one whole request from the buffer, or leave it as it is and return None."""
    head_end = buffer.find(b"\r\n\r\n")
    if head_end < 0:
        if len(buffer) > _MAX_HEAD_BYTES:
            raise ValueError("request head too large")
        return None
    lines = buffer[:head_end].decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (s.partition(":") for s in lines[1:])}
    length = int(headers.get("content-length", "0"))
    if not 0 <= length <= _MAX_BODY_BYTES or "transfer-encoding" in headers:
        raise ValueError("only bodies with a content-length are read")
    body_start = head_end + 4
    if len(buffer) < body_start + length:
        return None
    body = bytes(buffer[body_start : body_start + length])
    del buffer[: body_start + length]
    path, _, query = target.partition("?")
    return Request(method, path, headers, body, dict(parse_qsl(query)))


def _head(status: int, fields: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
