"""HTTP/1.1 over asyncio transports, no more of it than a model server's contract needs.

Under `server.py`; written by hand because the contract server must cut, stall and refuse at the byte level.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

_MAX_HEAD_BYTES = 65_536
_MAX_BODY_BYTES = 33_554_432


@dataclass(frozen=True, slots=True)
class Request:
    """One request, its body read to the end; header names are lower-case."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Response:
    """Writes one response: `json` or `text` at once, or `start_stream`, `send`…, `end_stream`."""

    def __init__(self, transport: asyncio.Transport, writable: asyncio.Event) -> None:
        self._transport = transport
        self._writable = writable

    def json(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """A whole JSON response."""
        encoded = json.dumps(body, ensure_ascii=False).encode()
        self._whole(status, encoded, {"content-type": "application/json", **(headers or {})})

    def text(self, status: int, body: str) -> None:
        """A whole plain response."""
        self._whole(status, body.encode(), {"content-type": "text/plain; charset=utf-8"})

    def start_stream(self, headers: Mapping[str, str] | None = None) -> None:
        """The head of a chunked stream of server-sent events; always 200."""
        fields = {"content-type": "text/event-stream", "transfer-encoding": "chunked", **(headers or {})}
        self._transport.write(_head(200, fields))

    async def send(self, data: bytes) -> None:
        """One chunk; waits while the reader is slow."""
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        await asyncio.sleep(0)
        await self._writable.wait()

    def end_stream(self) -> None:
        """The last, empty chunk."""
        self._transport.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Reset the connection, whatever was promised."""
        self._transport.abort()

    def _whole(self, status: int, body: bytes, fields: Mapping[str, str]) -> None:
        self._transport.write(_head(status, {**fields, "content-length": str(len(body))}) + body)


Handler = Callable[[Request, Response], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One keep-alive connection: requests are handled in turn; a hang-up cancels the one in hand."""

    def __init__(self, handle: Handler, peers: "set[Connection]") -> None:
        self._handle = handle
        self._peers = peers
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None
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
            self._task.cancel()

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
        response = Response(self._transport, self._writable)
        self._task = asyncio.ensure_future(self._run(request, response))
        self._task.add_done_callback(self._finished)

    async def _run(self, request: Request, response: Response) -> None:
        await self._handle(request, response)

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
    return Request(method, target.partition("?")[0], headers, body)


def _head(status: int, fields: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
