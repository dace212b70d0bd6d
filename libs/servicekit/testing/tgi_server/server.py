"""A model server that keeps TGI's contract, with dials for speed, capacity, meaning and faults.

Used by tests and benches in place of a GPU; generates a set answer instead of running a model. As of TGI 3's router:

| route | answers |
|---|---|
| `POST /generate` | the whole, `x-*-time` and `x-*-tokens` headers; details when asked |
| `POST /generate_stream` | `data:{index, token, top_tokens?, generated_text, details}`; no `[DONE]` |
| `POST /` | either of them, by `stream`; the whole as a list of one |
| `POST /v1/chat/completions` | OpenAI's chunks or the whole; `[DONE]`; no tools; another `model` is an adapter |
| `POST /v1/completions` | one prompt or up to four, whose chunks mix |
| `POST /tokenize`, `/chat_tokenize` | tokens with their offsets; the templated text |
| `GET /info`, `/v1/models` | model, revision, limits |
| `GET /health`, `/`, `/ping` | 200, or 503 |
| `GET /metrics` | Prometheus text: queue, batch, requests, durations |
| `GET /counts` | ours: totals, open connections and requests in hand |
| `GET /counts/generations` | ours: each generation by itself; `?id=` those of one `x-request-id` |
| `PUT /dials` | ours: turn some dials, told whole |

Errors are `{"error", "error_type"}`: 422 validation, 424 generation, 429 overloaded, 500 incomplete_generation,
503 healthcheck; inside a stream all of them come as HTTP 200 and a frame. JSON of the wrong shape is 422 as plain text.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from http import HTTPStatus
from typing import Any, Self

from servicekit.testing.tgi_server.answering import Machine
from servicekit.testing.tgi_server.counting import Counts, Generation
from servicekit.testing.tgi_server.dials import Dials, Fault
from servicekit.testing.tgi_server.openai_requests import chat_parameters, chat_prompt
from servicekit.testing.tgi_server.refusals import UNAUTHORIZED, UNHEALTHY, Refusal
from servicekit.testing.tgi_server.routes import Routes, answer_refusal, read_body
from servicekit.testing.tgi_server.tokenizer import Piece, tokenize
from servicekit.testing.tgi_server.wire import Connection, Request, Response

_GENERATING = frozenset({"/", "/generate", "/generate_stream", "/v1/chat/completions", "/v1/completions"})
_OURS = ("/counts", "/dials")


class TgiServer:
    """The server's state; `dials` may be turned at any time, `counts` only grow (but for `open`)."""

    def __init__(self, dials: Dials) -> None:
        self._machine = Machine(dials)
        self._routes = Routes(self._machine)
        self._opened_at_s = time.monotonic()
        self.url = ""
        self.connections: set[Connection] = set()
        self.connections_made = 0
        self.last_path = ""
        self.last_body: dict[str, Any] = {}
        self.last_headers: Mapping[str, str] = {}

    @property
    def dials(self) -> Dials:
        """As they stand."""
        return self._machine.dials

    @property
    def counts(self) -> Counts:
        """Totals so far."""
        return self._machine.ledger.counts

    @property
    def open_connections(self) -> int:
        """Connections that callers hold open, idle ones included."""
        return len(self.connections)

    @property
    def busy_connections(self) -> int:
        """Connections with a request in hand: the tasks of this server."""
        return sum(connection.is_busy for connection in self.connections)

    def generations(self, identity: str | None = None) -> list[Generation]:
        """Each generation so far, or those of one `x-request-id`."""
        ledger = self._machine.ledger
        return list(ledger.generations) if identity is None else ledger.of(identity)

    def turn(self, **dials: Any) -> Self:
        """Replace some of the dials."""
        if "fault" in dials:
            dials["fault"] = Fault(dials["fault"])
        self._machine.turn(replace(self.dials, **dials))
        return self

    async def idle(self) -> None:
        """Return once no generation is open, cancelled ones included."""
        await self._machine.idle()

    async def handle(self, request: Request, response: Response) -> None:
        """Answer one request."""
        self.counts.requests += 1
        try:
            if not request.path.startswith(_OURS):
                self._check(request)
            if request.method == "POST" and request.path in _GENERATING:
                await self._generate(request, response)
            else:
                self._answer(request, response)
        except Refusal as refusal:
            self.counts.refused += request.path in _GENERATING
            answer_refusal(response, refusal)

    def _check(self, request: Request) -> None:
        """Nothing is answered while the server starts, nor to a caller without the key."""
        if time.monotonic() - self._opened_at_s < self.dials.start_s:
            raise UNHEALTHY
        key = self.dials.api_key
        if key and request.path in _GENERATING and request.headers.get("authorization") != f"Bearer {key}":
            raise UNAUTHORIZED

    async def _generate(self, request: Request, response: Response) -> None:
        self.last_path, self.last_headers = request.path, request.headers
        self.last_body = body = read_body(request)
        self._machine.metrics.requests += 1
        match request.path:
            case "/v1/chat/completions":
                await self._routes.chat(request, response, body)
            case "/v1/completions":
                await self._routes.completions(request, response, body)
            case _:
                await self._routes.generate(request, response, body)

    def _answer(self, request: Request, response: Response) -> None:
        """The routes that answer at once."""
        match request.method, request.path:
            case "POST", "/tokenize" | "/chat_tokenize":
                response.json(HTTPStatus.OK, self._tokens(request.path, read_body(request)))
            case "GET", "/info":
                response.json(HTTPStatus.OK, self._info())
            case "GET", "/v1/models":
                model = {"id": self.dials.model, "object": "model", "created": 0, "owned_by": self.dials.model}
                response.json(HTTPStatus.OK, {"object": "list", "data": [model]})
            case "GET", "/health" | "/" | "/ping":
                if not self.dials.healthy or self.dials.fault is Fault.UNAVAILABLE:
                    raise UNHEALTHY
                response.text(HTTPStatus.OK, "")
            case "GET", "/metrics":
                response.text(HTTPStatus.OK, self._machine.metrics_text())
            case _, path if path.startswith(_OURS):
                self._answer_ours(request, response)
            case _:
                response.text(HTTPStatus.NOT_FOUND, "")

    def _answer_ours(self, request: Request, response: Response) -> None:
        """What TGI does not have."""
        match request.method, request.path:
            case "GET", "/counts":
                open_now = {"connections": self.open_connections, "tasks": self.busy_connections}
                response.json(HTTPStatus.OK, asdict(self.counts) | open_now)
            case "GET", "/counts/generations":
                response.json(HTTPStatus.OK, [asdict(one) for one in self.generations(request.query.get("id"))])
            case "PUT", "/dials":
                dials = read_body(request)
                if unknown := dials.keys() - asdict(self.dials).keys():
                    raise Refusal(HTTPStatus.BAD_REQUEST, "dials", f"there are no dials named {sorted(unknown)}")
                response.json(HTTPStatus.OK, asdict(self.turn(**dials).dials))
            case _:
                response.text(HTTPStatus.NOT_FOUND, "")

    def _tokens(self, path: str, body: Mapping[str, Any]) -> Any:
        if path == "/tokenize":
            return [_told(piece) for piece in tokenize(str(body.get("inputs", "")))]
        chat_parameters(body, self.dials)
        text = chat_prompt(body)
        return {"tokenize_response": [_told(piece) for piece in tokenize(text)], "templated_text": text}

    def _info(self) -> dict[str, Any]:
        dials = self.dials
        return {
            "model_id": dials.model,
            "model_sha": dials.revision,
            "model_pipeline_tag": "text-generation",
            "max_concurrent_requests": dials.max_concurrent_requests,
            "max_best_of": dials.max_best_of,
            "max_stop_sequences": dials.max_stop_sequences,
            "max_input_tokens": dials.max_input_tokens,
            "max_total_tokens": dials.max_total_tokens,
            "validation_workers": 2,
            "max_client_batch_size": dials.max_client_batch_size,
            "router": "text-generation-router",
            "version": "3.3.6",
            "sha": None,
            "docker_label": None,
        }


def _told(piece: Piece) -> dict[str, Any]:
    """By hand, as `asdict` takes five times as long for a prompt's thousands."""
    return {"id": piece.id, "text": piece.text, "start": piece.start, "stop": piece.stop}


@asynccontextmanager
async def open_tgi_server(
    dials: Dials | None = None, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[TgiServer]:
    """Serve until the context ends; port 0 takes a free one, `url` names it."""
    state = TgiServer(dials or Dials())
    loop = asyncio.get_running_loop()

    def connect() -> Connection:
        state.connections_made += 1
        return Connection(state.handle, state.connections)

    listener = await loop.create_server(connect, host, port)
    state.url = f"http://{host}:{listener.sockets[0].getsockname()[1]}"
    try:
        yield state
    finally:
        listener.close()
        await asyncio.gather(*(connection.close() for connection in tuple(state.connections)))
