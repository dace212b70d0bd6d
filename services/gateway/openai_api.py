"""The OpenAI-compatible HTTP entry: another door to the same answering as gRPC, with the same credentials.

Built by `bootstrap.py`, served by the runtime. A client that goes away cancels its answer.
"""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uuid_utils.compat import uuid7

from servicekit.errors import BinnacleError, InvalidRequest, NotFound
from servicekit.ports.clock import Clock
from servicekit.rpc.auth import Authenticator, Caller, require_scope, set_caller
from servicekit.rpc.deadline import Budget, set_budget
from servicekit.telemetry.correlation import (
    REQUEST_ID_METADATA,
    Correlation,
    accept_request_id,
    current_request_id,
    set_correlation,
)
from servicekit.telemetry.metrics import counter
from servicekit.telemetry.tracing import TRACEPARENT, span
from services.gateway.answering import Answering
from services.gateway.backends import Generator
from services.gateway.grouping import task_group
from services.gateway.openai_convert import completion, question_of, wants_usage
from services.gateway.openai_errors import to_http
from services.gateway.openai_stream import CompletionStream, Reply
from services.gateway.question import Asker, Channel

SCOPE = "answer"

# HTTP requests that were answered, by what they asked for and how it went.
HTTP_REQUESTS = counter("http_requests", meaning="HTTP requests served", labels=("path", "code"))

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of one HTTP request."""

    deadline_s: float
    slow_reader_s: float
    max_body_bytes: int


class OpenAiApi:
    """`/v1/chat/completions` and `/v1/models`."""

    def __init__(
        self,
        answering: Answering,
        generator: Generator,
        *,
        authenticator: Authenticator,
        clock: Clock,
        limits: HttpLimits,
    ) -> None:
        self._answering = answering
        self._generator = generator
        self._authenticator = authenticator
        self._clock = clock
        self._limits = limits
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", _Endpoint(self, self._complete), methods=["POST"]),
                Route("/v1/models", _Endpoint(self, self._list_models), methods=["GET"]),
                Route("/v1/models/{model:path}", _Endpoint(self, self._get_model), methods=["GET"]),
            ],
            exception_handlers={HTTPException: _no_such_route},
        )

    async def serve(self, work: "_Work", scope: Scope, receive: Receive, send: Send) -> None:
        """One request from its credential to its reply; whatever fails is told in OpenAI's shape."""
        request = Request(scope, receive)
        reply = Reply(send, slow_reader_s=self._limits.slow_reader_s)
        given = accept_request_id(request.headers.get(REQUEST_ID_METADATA))
        set_correlation(Correlation(given or str(uuid7())))
        path = scope["route"].path
        with span(f"{request.method} {path}", kind=SpanKind.SERVER, traceparent=request.headers.get(TRACEPARENT, "")):
            try:
                caller = self._authenticated(request)
                budget = Budget.from_remaining(self._limits.deadline_s)
                set_budget(budget)
                await work(_Call(request, reply, caller, budget))
            except ClientDisconnect:
                log.info("http.disconnected")
            except Exception as error:  # noqa: BLE001  # the edge: whatever it is becomes a status
                await _tell(error, reply)
            finally:
                HTTP_REQUESTS.labels(path, str(reply.status or 499)).inc()

    def _authenticated(self, request: Request) -> Caller:
        headers = [(name.lower(), value) for name, value in request.headers.items()]
        caller = require_scope(SCOPE, self._authenticator.authenticate(headers))
        set_correlation(Correlation(current_request_id(), caller.tenant))
        set_caller(caller)
        return caller

    async def _complete(self, call: "_Call") -> None:
        document = await self._read(call.request)
        key = call.request.headers.get("idempotency-key", "")
        question = question_of(document, idempotency_key=key)
        asker = Asker(call.caller.tenant, call.caller.subject, may_restore=call.caller.may("restore"))
        created_s = int(self._clock.now().timestamp())

        async def answered() -> None:
            if question.channel is Channel.HTTP_STREAM:
                stream = CompletionStream(
                    call.reply,
                    created_s=created_s,
                    model=question.model or "default",
                    with_usage=wants_usage(document),
                )
                await self._answering.answer(question, asker=asker, budget=call.budget, emit=stream.emit)
                return
            answer = await self._answering.answer(question, asker=asker, budget=call.budget)
            await call.reply.whole(completion(answer, created_s=created_s), request_id=answer.request_id)

        await _unless_disconnected(call.request, answered())

    async def _list_models(self, call: "_Call") -> None:
        models = await self._generator.list_models(timeout_s=call.budget.remaining_s())
        listed = [_model(model.alias) for model in models]
        await call.reply.whole({"object": "list", "data": listed}, request_id=current_request_id())

    async def _get_model(self, call: "_Call") -> None:
        asked = call.request.path_params["model"]
        models = await self._generator.list_models(timeout_s=call.budget.remaining_s())
        if asked not in {model.alias for model in models}:
            raise NotFound(f"no model {asked[:64]!a}; GET /v1/models lists them", reason="MODEL_NOT_FOUND")
        await call.reply.whole(_model(asked), request_id=current_request_id())

    async def _read(self, request: Request) -> dict[str, Any]:
        """The body as a JSON object, bounded in size and time.

        Raises:
            InvalidRequest: too large, too slow, no JSON, no object, or text that is not Unicode.
            ClientDisconnect: the client went away before its end.
        """
        body = bytearray()
        limits = self._limits
        try:
            async with asyncio.timeout(limits.slow_reader_s):
                async for piece in request.stream():
                    body += piece
                    if len(body) > limits.max_body_bytes:
                        raise InvalidRequest(
                            f"the body must hold at most {limits.max_body_bytes} bytes; send less",
                            reason="BODY_TOO_LARGE",
                        )
        except TimeoutError as exc:
            raise InvalidRequest(
                f"the body must arrive within {limits.slow_reader_s:g} s; send all of it at once",
                reason="BODY_TOO_SLOW",
            ) from exc
        return parse_body(bytes(body))


@dataclass(frozen=True, slots=True)
class _Call:
    request: Request
    reply: Reply
    caller: Caller
    budget: Budget


_Work = Callable[[_Call], Awaitable[None]]


class _Endpoint:
    """A plain ASGI application, which Starlette neither wraps nor buffers."""

    def __init__(self, api: OpenAiApi, work: _Work) -> None:
        self._api = api
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._api.serve(self._work, scope, receive, send)


def parse_body(body: bytes) -> dict[str, Any]:
    """The JSON object of a request's body.

    Raises:
        InvalidRequest: no JSON in UTF-8, no object, nested too deeply, or text that is not Unicode.
    """
    try:
        document = json.loads(body)
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as exc:
        raise InvalidRequest(
            "the body must be a JSON object in UTF-8, without lone surrogates", reason="INVALID_JSON"
        ) from exc
    if not isinstance(document, dict):
        raise InvalidRequest(f"the body must be a JSON object, got {type(document).__name__}", reason="INVALID_JSON")
    return document


async def _unless_disconnected(request: Request, work: Awaitable[None]) -> None:
    """Do the work, cancelled when the client goes away."""
    gone = False

    async def watch(worker: asyncio.Task[None]) -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = not worker.done()  # a reply that is complete reads as a disconnect as well
        worker.cancel()

    async with task_group() as group:
        worker = group.create_task(_as_coroutine(work))
        watcher = group.create_task(watch(worker))
        worker.add_done_callback(lambda _: watcher.cancel())
    if gone:
        log.info("http.disconnected")


async def _as_coroutine(work: Awaitable[None]) -> None:
    await work


async def _tell(error: Exception, reply: Reply) -> None:
    error_id = uuid.uuid4().hex
    if not isinstance(error, BinnacleError):
        log.error("http.unexpected", error_id=error_id, exc_info=error)
    await reply.failure(to_http(error, error_id=error_id), request_id=current_request_id())


async def _no_such_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    message = f"{request.method} {request.url.path} is not served here; see POST /v1/chat/completions, GET /v1/models"
    body = {"message": message, "type": "invalid_request_error", "param": None, "code": "unknown_url"}
    return JSONResponse({"error": body}, status_code=status)


def _model(alias: str) -> dict[str, Any]:
    return {"id": alias, "object": "model", "created": 0, "owned_by": "binnacle"}
