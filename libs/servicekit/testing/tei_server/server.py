"""A server that keeps the contract of text-embeddings-inference: routes, limits, error bodies; with dials for faults.

Used by tests and benches in place of a GPU. A route is a function of the server and the request's body that returns
the answer's; further ones are added to `ROUTES`.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Self

from servicekit.testing.tei_server.dials import Counts, Dials, Fault
from servicekit.testing.tei_server.embedding import embed, openai_body, read_inputs, tokenize
from servicekit.testing.tei_server.refusals import Refusal
from servicekit.testing.tei_server.reranking import rerank
from servicekit.testing.tgi_server.wire import Connection, Request, Response

COMPATIBLE = "/v1/embeddings"
_FAULTS = {
    Fault.OVERLOADED: ("Overloaded", "Model is overloaded"),
    Fault.BACKEND: ("Backend", "Inference failed"),
    Fault.TOKENIZER: ("Tokenizer", "Tokenization error"),
    Fault.UNHEALTHY: ("Unhealthy", "unhealthy"),
}


class TeiServer:
    """The server's state; `dials` may be replaced at any time, `counts` only grow (but for `open`)."""

    def __init__(self, dials: Dials) -> None:
        self.dials = dials
        self.counts = Counts()
        self.url = ""
        self.paths: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.last_headers: Mapping[str, str] = {}

    def turn(self, **dials: Any) -> Self:
        """Replace some of the dials."""
        if "fault" in dials:
            dials["fault"] = Fault(dials["fault"])
        self.dials = replace(self.dials, **dials)
        return self

    async def handle(self, request: Request, response: Response) -> None:
        """Answer one request."""
        self.counts.requests += 1
        self.last_headers = request.headers
        try:
            with self._counted():
                await self._answer(request, response)
        except Refusal as refusal:
            self.counts.refused += 1
            response.json(refusal.status, refusal.body(compatible=request.path == COMPATIBLE))

    async def _answer(self, request: Request, response: Response) -> None:
        if self.dials.api_key and request.headers.get("authorization") != f"Bearer {self.dials.api_key}":
            response.text(401, "")
        elif request.method == "GET" and request.path == "/info":
            response.json(200, self._info())
        elif request.method == "GET" and request.path == "/health":
            if self.dials.fault is Fault.UNHEALTHY:
                raise Refusal("Unhealthy", "unhealthy")
            response.text(200, "")
        elif request.method == "POST" and request.path in ROUTES:
            await self._work(request, response)
        else:
            response.text(404, "")

    async def _work(self, request: Request, response: Response) -> None:
        body = _read(request)
        self.paths.append(request.path)
        self.bodies.append(body)
        fault = self._take_fault()
        if request.path != "/tokenize":
            await asyncio.sleep(self.dials.delay_s)
        match fault:
            case Fault.HANG:
                await asyncio.Event().wait()
            case Fault.DROP:
                response.cut()
            case Fault.GARBAGE:
                response.text(200, "<html>not what you asked for</html>")
            case _:
                response.json(200, ROUTES[request.path](self, body))

    def _take_fault(self) -> Fault:
        """The fault that hits this request, if any still does; refusals are raised."""
        if self.counts.open > self.dials.max_concurrent_requests:
            raise Refusal("Overloaded", "Model is overloaded")
        fault = self.dials.fault
        if fault is Fault.NONE or self.dials.fault_requests == 0:
            return Fault.NONE
        if self.dials.fault_requests > 0:
            self.dials = replace(self.dials, fault_requests=self.dials.fault_requests - 1)
        if fault in _FAULTS:
            raise Refusal(*_FAULTS[fault])
        return fault

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.counts.open += 1
        self.counts.most_open = max(self.counts.most_open, self.counts.open)
        try:
            yield
        finally:
            self.counts.open -= 1

    def spoil(self, vectors: list[list[float]]) -> list[list[float]]:
        """The vectors as a faulty model gives them."""
        match self.dials.fault:
            case Fault.TOO_FEW:
                return vectors[1:]
            case Fault.ZEROS:
                return [[0.0] * len(vector) for vector in vectors]
            case _:
                return vectors

    def _info(self) -> dict[str, Any]:
        dials = self.dials
        kinds: dict[str, Any] = {
            "embedding": {"embedding": {"pooling": dials.pooling}},
            "reranker": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
            "classifier": {"classifier": {"id2label": {"0": "a"}, "label2id": {"a": 0}}},
        }
        return {
            "model_id": dials.model,
            "model_sha": dials.revision or None,
            "model_dtype": dials.dtype,
            "model_type": kinds[dials.kind],
            "max_concurrent_requests": dials.max_concurrent_requests,
            "max_input_length": dials.max_input_length,
            "max_batch_tokens": dials.max_batch_tokens,
            "max_batch_requests": None,
            "max_client_batch_size": dials.max_client_batch_size,
            "auto_truncate": dials.auto_truncate,
            "tokenization_workers": 2,
            "version": "1.8.2",
            "sha": None,
            "docker_label": None,
        }


Route = Callable[[TeiServer, dict[str, Any]], Any]


def _embed(server: TeiServer, body: dict[str, Any]) -> Any:
    dials = server.dials
    if dials.kind != "embedding":
        raise Refusal("Backend", "model is not an embedding model")
    texts = read_inputs(body.get("inputs"), dials)
    server.counts.embedded += len(texts)
    vectors = embed(texts, dials, truncate=bool(body.get("truncate")), normalize=bool(body.get("normalize", True)))
    return server.spoil(vectors)


def _embed_as_openai(server: TeiServer, body: dict[str, Any]) -> Any:
    dials = server.dials
    texts = read_inputs(body.get("input"), dials)
    server.counts.embedded += len(texts)
    dimensions = body.get("dimensions") or dials.dimension
    vectors = server.spoil(embed(texts, replace(dials, dimension=dimensions), truncate=dials.auto_truncate))
    return openai_body(texts, vectors, model=dials.model, encoding=str(body.get("encoding_format", "float")))


def _tokenize(server: TeiServer, body: dict[str, Any]) -> Any:
    texts = read_inputs(body.get("inputs"), server.dials)
    server.counts.tokenized += len(texts)
    return tokenize(texts, server.dials, add_special_tokens=bool(body.get("add_special_tokens", True)))


def _rerank(server: TeiServer, body: dict[str, Any]) -> Any:
    ranked = rerank(body, server.dials)
    server.counts.reranked += len(ranked)
    return ranked[1:] if server.dials.fault is Fault.TOO_FEW else ranked


ROUTES: Mapping[str, Route] = MappingProxyType(
    {
        "/embed": _embed,
        COMPATIBLE: _embed_as_openai,
        "/tokenize": _tokenize,
        "/rerank": _rerank,
    }
)


@asynccontextmanager
async def open_tei_server(
    dials: Dials | None = None, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[TeiServer]:
    """Serve until the context ends; port 0 takes a free one, `url` (http) names it."""
    state = TeiServer(dials or Dials())
    connections: set[Connection] = set()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Connection(state.handle, connections), host, port)
    state.url = f"http://{host}:{listener.sockets[0].getsockname()[1]}"
    try:
        yield state
    finally:
        listener.close()
        await asyncio.gather(*(connection.close() for connection in tuple(connections)))


def _read(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(request.body)
    except ValueError:
        raise Refusal("Tokenizer", "the body is no JSON") from None
    if not isinstance(body, dict):
        raise Refusal("Tokenizer", "the body is no JSON object")
    return body
