"""The ways to the same tokens that the benchmark of the generator compares, each as light as it can be.

Used by `generator.py`. Direct: HTTP/1.1 written and read by an `asyncio.Protocol`, which looks at no more than where a
token begins, so cheaper than any HTTP library. Ours: the generated stub over `grpc.aio`, as a service would call it.
Relay: the same stub, and a process behind it that does nothing but pass tokens on (`_generator_relay.py`).
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, cast

import grpc

from binnacle.generator.v1 import generator_service_pb2 as rpc
from binnacle.generator.v1 import generator_service_pb2_grpc as stubs
from binnacle.type.v1 import chunk_pb2, generation_pb2

# The window has room for so many chunks whatever their tokens are, or only once they are counted.
FEW_CHUNKS, MANY_CHUNKS = 5, 12
_FILLER = "The binnacle is the lit housing beside the helm in which the crew reads the compass at night. " * 8
_TOKEN = b'"index":'
_END = b"\r\n0\r\n\r\n"


class Arrivals:
    """When tokens came at the client, and how many at once."""

    def __init__(self) -> None:
        self.begun_s = 0.0
        self.at_s: list[float] = []
        self.counts: list[int] = []

    def begin(self) -> None:
        """The request goes out now."""
        self.begun_s = time.perf_counter()

    def note(self, tokens: int) -> None:
        """Tokens came now."""
        self.at_s.append(time.perf_counter())
        self.counts.append(tokens)


class Client(Protocol):
    """One way to an answer."""

    async def stream(self, number: int, tokens: int, *, chunks: int = FEW_CHUNKS) -> Arrivals:
        """Ask, read all of so many tokens, and tell when they came; `number` makes the prompt a new one."""
        ...


class Connections:
    """Connections to the engine that are used again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[EngineConnection] = []

    @asynccontextmanager
    async def one(self) -> AsyncIterator["EngineConnection"]:
        """A connection for one stream, read to its end."""
        connection = self._idle.pop() if self._idle else await self._connect()
        yield connection
        self._idle.append(connection)

    def close(self) -> None:
        """Close those at rest."""
        for connection in self._idle:
            connection.close()

    async def _connect(self) -> "EngineConnection":
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(EngineConnection, "127.0.0.1", self._port)
        return connection


class EngineConnection(asyncio.Protocol):
    """HTTP/1.1 to the engine, one stream at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._on_tokens: Callable[[int], None] = _nothing
        self._on_end: Callable[[], None] = _nothing
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are not instances of it

    def ask(self, body: bytes, *, on_tokens: Callable[[int], None], on_end: Callable[[], None]) -> None:
        """Ask for one stream; both are called as it comes, the end also where the engine hung up."""
        assert self._transport is not None
        self._on_tokens, self._on_end = on_tokens, on_end
        head = (
            b"POST /generate_stream HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        )
        self._transport.write(head % len(body) + body)

    def data_received(self, data: bytes) -> None:
        """Called by the loop. A mark may be cut in two: the rest of one read is looked at again with the next."""
        data = self._tail + data
        if tokens := data.count(_TOKEN):
            self._on_tokens(tokens)
        self._tail = data[-len(_TOKEN) + 1 :]
        if data.endswith(_END):
            self._tail = b""
            self._ended()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        del exc
        self._ended()

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def _ended(self) -> None:
        on_end, self._on_end = self._on_end, _nothing
        on_end()


def _nothing(*_: int) -> None:
    """Between two streams nothing is expected."""


class DirectClient:
    """Straight to the engine."""

    def __init__(self, port: int) -> None:
        self._connections = Connections(port)

    async def stream(self, number: int, tokens: int, *, chunks: int = FEW_CHUNKS) -> Arrivals:
        """See `Client`."""
        ended = asyncio.Event()
        arrivals = Arrivals()
        body = engine_body(_texts(number, chunks), _question(number), tokens)
        async with self._connections.one() as connection:
            arrivals.begin()
            connection.ask(body, on_tokens=arrivals.note, on_end=ended.set)
            await ended.wait()
        return _checked(arrivals, tokens)

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()


def engine_body(texts: Sequence[str], question: str, tokens: int) -> bytes:
    """The engine's request."""
    prompt = "\n".join(texts) + question
    parameters = {"max_new_tokens": tokens, "details": True}
    return json.dumps({"inputs": prompt, "parameters": parameters}).encode()


class GrpcClient:
    """Through the generator, or the relay in its place, over one channel."""

    def __init__(self, stub: "stubs.GeneratorServiceAsyncStub", api_key: str) -> None:
        self._stub = stub
        self._metadata = (("authorization", f"Bearer {api_key}"),)

    async def stream(self, number: int, tokens: int, *, chunks: int = FEW_CHUNKS) -> Arrivals:
        """See `Client`."""
        request = rpc.GenerateAnswerRequest(
            question=_question(number),
            chunks=[
                chunk_pb2.ScoredChunk(
                    chunk=chunk_pb2.Chunk(chunk_id=f"c{place}", document_id=f"d{place}", text=text), rank=place
                )
                for place, text in enumerate(_texts(number, chunks), start=1)
            ],
            sampling=generation_pb2.Sampling(max_output_tokens=tokens),
        )
        arrivals = Arrivals()
        arrivals.begin()
        async for response in self._stub.GenerateAnswer(request, metadata=self._metadata, timeout=120):
            if response.HasField("token") and response.token.token_count:
                arrivals.note(response.token.token_count)
        return _checked(arrivals, tokens)


@asynccontextmanager
async def open_clients(*, engine_port: int, relay: str, target: str, api_key: str) -> AsyncIterator[dict[str, Client]]:
    """All three, in the order in which they take turns."""
    direct = DirectClient(engine_port)
    async with grpc.aio.insecure_channel(relay) as bare, grpc.aio.insecure_channel(target) as channel:
        relayed = GrpcClient(stubs.GeneratorServiceStub(bare), api_key)
        yield {"direct": direct, "relay": relayed, "ours": GrpcClient(stubs.GeneratorServiceStub(channel), api_key)}
    direct.close()


def _question(number: int) -> str:
    return f"Question {number}: what is a binnacle?"


def _texts(number: int, chunks: int) -> list[str]:
    return [f"Document {number}.{place}. {_FILLER}" for place in range(chunks)]


def _checked(arrivals: Arrivals, tokens: int) -> Arrivals:
    if sum(arrivals.counts) != tokens:
        raise RuntimeError(f"{tokens} tokens were asked for, {sum(arrivals.counts)} came")
    return arrivals
