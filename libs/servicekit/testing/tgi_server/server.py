"""A model server that keeps TGI's contract: routes, frames, bounds, errors; with dials for speed and faults.

Used by tests and benches in place of a GPU; generates a set answer instead of running a model.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, replace
from http import HTTPStatus
from typing import Any, Self

from servicekit.testing.tgi_server.dials import Counts, Dials, Fault
from servicekit.testing.tgi_server.formats import ChatFormat, Format, GenerateFormat
from servicekit.testing.tgi_server.generation import Plan, Refusal, invalid, plan
from servicekit.testing.tgi_server.streaming import OVERLOADED, pace, refuse_at_start, stream
from servicekit.testing.tgi_server.tokenizer import tokenize
from servicekit.testing.tgi_server.wire import Connection, Request, Response


class TgiServer:
    """The server's state; `dials` may be replaced at any time, `counts` only grow (but for `open`)."""

    def __init__(self, dials: Dials) -> None:
        self.dials = dials
        self.counts = Counts()
        self.url = ""
        self._idle = asyncio.Event()
        self._idle.set()
        self.last_path = ""
        self.last_body: dict[str, Any] = {}
        self.last_headers: Mapping[str, str] = {}
        self.connections_made = 0

    def turn(self, **dials: Any) -> Self:
        """Replace some of the dials."""
        if "fault" in dials:
            dials["fault"] = Fault(dials["fault"])
        self.dials = replace(self.dials, **dials)
        return self

    async def idle(self) -> None:
        """Return once no generation is open, cancelled ones included."""
        await self._idle.wait()

    async def handle(self, request: Request, response: Response) -> None:
        """Answer one request."""
        self.counts.requests += 1
        try:
            await self._route(request, response)
        except Refusal as refusal:
            self.counts.refused += 1
            response.json(refusal.status, refusal.body)

    async def _route(self, request: Request, response: Response) -> None:
        match request.method, request.path:
            case "POST", "/" | "/generate" | "/generate_stream":
                await self._generate(request, response)
            case "POST", "/v1/chat/completions":
                await self._chat(request, response)
            case "POST", "/tokenize":
                pieces = tokenize(str(_body(request).get("inputs", "")))
                response.json(200, [asdict(piece) for piece in pieces])
            case "GET", "/info":
                response.json(200, self._info())
            case "GET", "/v1/models":
                models = [{"id": self.dials.model, "object": "model", "created": 0, "owned_by": "contract"}]
                response.json(200, {"object": "list", "data": models})
            case "GET", "/health":
                refuse_at_start(Fault.UNAVAILABLE if self.dials.fault is Fault.UNAVAILABLE else Fault.NONE)
                response.text(200, "")
            case "GET", "/metrics":
                response.text(200, self._metrics())
            case "GET", "/counts":
                response.json(200, asdict(self.counts))
            case "PUT", "/dials":
                response.json(200, asdict(self.turn(**_body(request)).dials))
            case _:
                response.json(404, {"error": "Not Found", "error_type": "not_found"})

    async def _generate(self, request: Request, response: Response) -> None:
        body = self._read_body(request)
        streamed = request.path == "/generate_stream" or (request.path == "/" and body.get("stream") is True)
        try:
            fault = self._take_fault()
            planned = plan(self.dials, body.get("inputs"), body.get("parameters") or {})
        except Refusal as refusal:
            if not streamed:
                raise
            await self._refuse_in_stream(response, GenerateFormat(self.dials, _NOTHING), refusal)
            return
        frames = GenerateFormat(self.dials, planned)
        if streamed:
            await self._stream(response, planned, frames, fault)
        else:
            whole = frames.whole()
            await self._whole(response, planned, fault, [whole] if request.path == "/" else whole)

    async def _chat(self, request: Request, response: Response) -> None:
        body = self._read_body(request)
        streamed = body.get("stream") is True
        try:
            fault = self._take_fault()
            planned = plan(self.dials, _chat_prompt(body), _chat_parameters(body))
        except Refusal as refusal:
            if not streamed:
                raise
            await self._refuse_in_stream(response, ChatFormat(self.dials, _NOTHING), refusal)
            return
        include_usage = self.dials.report_usage and bool((body.get("stream_options") or {}).get("include_usage"))
        frames = ChatFormat(self.dials, planned, include_usage=include_usage)
        if streamed:
            await self._stream(response, planned, frames, fault)
        else:
            await self._whole(response, planned, fault, frames.whole())

    async def _stream(self, response: Response, planned: Plan, frames: Format, fault: Fault) -> None:
        with self._counted(planned) as outcome:
            if await _begins(response, fault):
                response.start_stream({"x-accel-buffering": "no"})
                outcome.complete = await stream(
                    response, planned, frames, dials=self.dials, fault=fault, counts=self.counts
                )

    async def _whole(self, response: Response, planned: Plan, fault: Fault, body: Any) -> None:
        with self._counted(planned) as outcome:
            if not await _begins(response, fault):
                return
            for index in range(1, len(planned.pieces) + 1):
                await pace(index, self.dials)
            self.counts.output_tokens += len(planned.pieces)
            headers = {
                "x-prompt-tokens": str(planned.input_tokens),
                "x-generated-tokens": str(len(planned.pieces)),
            }
            response.json(200, body, headers)
            outcome.complete = True

    async def _refuse_in_stream(self, response: Response, frames: Format, refusal: Refusal) -> None:
        self.counts.refused += 1
        response.start_stream()
        await response.send(frames.error_frame(refusal))
        response.end_stream()

    def _read_body(self, request: Request) -> dict[str, Any]:
        self.last_path, self.last_headers, self.last_body = request.path, request.headers, _body(request)
        return self.last_body

    def _take_fault(self) -> Fault:
        """The fault that hits this request, if it still hits any; refusals are raised."""
        if self.counts.open >= self.dials.max_concurrent_requests:
            raise OVERLOADED
        fault = self.dials.fault
        if fault is Fault.NONE or self.dials.fault_requests == 0:
            return Fault.NONE
        if self.dials.fault_requests > 0:
            self.dials = replace(self.dials, fault_requests=self.dials.fault_requests - 1)
        refuse_at_start(fault)
        return fault

    @contextmanager
    def _counted(self, planned: Plan) -> Iterator["_Outcome"]:
        """Count one generation from its start to whatever end it has."""
        outcome = _Outcome()
        self.counts.generations += 1
        self.counts.open += 1
        self._idle.clear()
        self.counts.input_tokens += planned.input_tokens
        try:
            yield outcome
        except asyncio.CancelledError:
            self.counts.cancelled += 1
            raise
        else:
            self.counts.completed += outcome.complete
            self.counts.failed += not outcome.complete
        finally:
            self.counts.open -= 1
            if self.counts.open == 0:
                self._idle.set()

    def _info(self) -> dict[str, Any]:
        return {
            "model_id": self.dials.model,
            "model_sha": self.dials.revision,
            "model_pipeline_tag": "text-generation",
            "max_concurrent_requests": self.dials.max_concurrent_requests,
            "max_best_of": 2,
            "max_stop_sequences": 4,
            "max_input_tokens": self.dials.max_input_tokens,
            "max_total_tokens": self.dials.max_total_tokens,
            "validation_workers": 2,
            "max_client_batch_size": 4,
            "router": "text-generation-router",
            "version": "3.3.6",
            "sha": None,
            "docker_label": None,
        }

    def _metrics(self) -> str:
        rows = {
            "tgi_queue_size gauge": 0,
            "tgi_batch_current_size gauge": self.counts.open,
            "tgi_request_count counter": self.counts.generations,
            "tgi_request_success counter": self.counts.completed,
        }
        return "".join(f"# TYPE {row}\n{row.split()[0]} {value}\n" for row, value in rows.items())


class _Outcome:
    def __init__(self) -> None:
        self.complete = False


_NOTHING = Plan(0, (), "eos_token", None)


@asynccontextmanager
async def open_tgi_server(
    dials: Dials | None = None, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[TgiServer]:
    """Serve until the context ends; port 0 takes a free one, `url` names it."""
    state = TgiServer(dials or Dials())
    connections: set[Connection] = set()
    loop = asyncio.get_running_loop()

    def connect() -> Connection:
        state.connections_made += 1
        return Connection(state.handle, connections)

    listener = await loop.create_server(connect, host, port)
    state.url = f"http://{host}:{listener.sockets[0].getsockname()[1]}"
    try:
        yield state
    finally:
        listener.close()
        await asyncio.gather(*(connection.close() for connection in tuple(connections)))


async def _begins(response: Response, fault: Fault) -> bool:
    """Whether anything is answered at all."""
    if fault is Fault.HANG:
        await asyncio.Event().wait()
    if fault is Fault.DROP:
        response.cut()
        return False
    return True


def _body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(request.body)
    except ValueError:
        raise Refusal(HTTPStatus.BAD_REQUEST, "input", "the body is no JSON") from None
    if not isinstance(body, dict):
        raise Refusal(HTTPStatus.BAD_REQUEST, "input", "the body is no JSON object")
    return body


def _chat_prompt(body: dict[str, Any]) -> str:
    """The messages joined, in place of a chat template."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise invalid("`messages` cannot be empty")
    return "\n".join(f"{message.get('role')}: {message.get('content')}" for message in messages)


def _chat_parameters(body: dict[str, Any]) -> dict[str, Any]:
    stop = body.get("stop") or []
    return {
        "max_new_tokens": body.get("max_tokens"),
        "stop": [stop] if isinstance(stop, str) else stop,
        "temperature": body.get("temperature") or None,
        "top_p": None if body.get("top_p") == 1 else body.get("top_p"),
        "frequency_penalty": body.get("frequency_penalty"),
        "seed": body.get("seed"),
    }
