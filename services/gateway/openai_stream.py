"""Writes one chat completion to an HTTP connection: whole, or as server-sent events.

Used by `openai_api.py`. The status line waits for the first text, so that what fails before it is told by its status.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from servicekit.errors import Overloaded
from services.gateway.answer import Accepted, Answer, AnswerEvent, Completed, Retracted, Token
from services.gateway.openai_convert import finish_reason, provenance, usage
from services.gateway.openai_errors import HttpFailure

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Reply:
    """One HTTP response; every send is bounded, so that a reader that does not read pins nothing."""

    def __init__(self, send: Send, *, slow_reader_s: float) -> None:
        self._send = send
        self._slow_reader_s = slow_reader_s
        self.started = False
        self.broken = False
        self.status = 0

    async def whole(self, document: dict[str, Any], *, request_id: str) -> None:
        """A JSON document."""
        await self._document(200, document, {"x-request-id": request_id})

    async def failure(self, failure: HttpFailure, *, request_id: str) -> None:
        """An error: by its status, or, once a stream has begun, as its last event."""
        if self.broken:
            return
        if self.started:
            self.status = failure.status
            await self.event(failure.body)
            await self.end()
        else:
            await self._document(failure.status, failure.body, {**failure.headers, "x-request-id": request_id})

    async def start_stream(self, *, request_id: str) -> None:
        """The head of an event stream."""
        headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
        await self._start(200, {**headers, "x-request-id": request_id})

    async def event(self, document: dict[str, Any]) -> None:
        """One server-sent event."""
        await self._bounded(
            {"type": "http.response.body", "body": b"data: " + encode(document) + b"\n\n", "more_body": True}
        )

    async def end(self, *, last: bytes = b"") -> None:
        """The end of the stream."""
        await self._bounded({"type": "http.response.body", "body": last, "more_body": False})

    async def _document(self, status: int, document: dict[str, Any], headers: dict[str, str]) -> None:
        body = encode(document)
        await self._start(status, {"content-type": "application/json", "content-length": str(len(body)), **headers})
        await self.end(last=body)

    async def _start(self, status: int, headers: dict[str, str]) -> None:
        self.started = True
        self.status = status
        raw = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
        await self._bounded({"type": "http.response.start", "status": status, "headers": raw})

    async def _bounded(self, message: MutableMapping[str, Any]) -> None:
        try:
            async with asyncio.timeout(self._slow_reader_s):
                await self._send(message)
        except TimeoutError as exc:
            self.broken = True
            raise Overloaded(
                f"the response was cut: nothing was read from it for {self._slow_reader_s:g} s", reason="SLOW_READER"
            ) from exc


class CompletionStream:
    """Turns the events of an answer into chat completion chunks."""

    def __init__(self, reply: Reply, *, created_s: int, model: str, with_usage: bool) -> None:
        self._reply = reply
        self._created_s = created_s
        self._model = model
        self._with_usage = with_usage
        self._request_id = ""
        self._retracted: Retracted | None = None

    async def emit(self, event: AnswerEvent) -> None:
        """Write what the event means to an OpenAI client; the others have no word there."""
        match event:
            case Token(text):
                await self._begin()
                await self._chunk({"content": text})
            case Retracted():
                self._retracted = event
            case Completed(answer):
                await self._begin()
                await self._finish(answer)
            case Accepted(request_id):
                self._request_id = request_id
            case _:
                pass

    async def _begin(self) -> None:
        if not self._reply.started:
            await self._reply.start_stream(request_id=self._request_id)
            await self._chunk({"role": "assistant", "content": ""})

    async def _finish(self, answer: Answer) -> None:
        extra = provenance(answer)
        reason = finish_reason(answer)
        if self._retracted is not None:
            # OpenAI's protocol cannot take text back: the reason says that it must not be used.
            reason = "content_filter"
            extra["retracted"] = {"reason": self._retracted.reason, "replacement": self._retracted.replacement}
        await self._chunk({}, reason=reason, binnacle=extra)
        if self._with_usage:
            await self._reply.event({**self._head(), "choices": [], "usage": usage(answer)})
        await self._reply.end(last=b"data: [DONE]\n\n")

    async def _chunk(self, delta: dict[str, Any], *, reason: str | None = None, **extra: Any) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        document = {**self._head(), "choices": [choice], **extra}
        if self._with_usage:
            document["usage"] = None
        await self._reply.event(document)

    def _head(self) -> dict[str, Any]:
        return {
            "id": self._request_id,
            "object": "chat.completion.chunk",
            "created": self._created_s,
            "model": self._model,
        }


def encode(document: dict[str, Any]) -> bytes:
    """JSON in UTF-8, without blanks."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
