"""The two ways to the same tokens that the benchmark of the generator compares, each as light as it can be.

Used by `generator.py`. Direct: HTTP/1.1 written and read by an `asyncio.Protocol`, which looks at no more than where a
token begins, so cheaper than any HTTP library. Ours: the generated stub over `grpc.aio`, as a service would call it.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

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


class DirectClient:
    """Straight to the engine, over connections that are used again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[_Connection] = []

    async def stream(self, number: int, tokens: int, *, chunks: int = FEW_CHUNKS) -> Arrivals:
        """See `Client`."""
        connection = self._idle.pop() if self._idle else await self._connect()
        prompt = "\n".join(_texts(number, chunks)) + _question(number)
        body = {"inputs": prompt, "parameters": {"max_new_tokens": tokens, "details": True}}
        arrivals = await connection.ask(json.dumps(body).encode())
        self._idle.append(connection)
        return _checked(arrivals, tokens)

    def close(self) -> None:
        """Close the connections."""
        for connection in self._idle:
            connection.close()

    async def _connect(self) -> "_Connection":
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", self._port)
        return connection


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._arrivals = Arrivals()
        self._done: asyncio.Future[Arrivals] | None = None
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    async def ask(self, body: bytes) -> Arrivals:
        """One stream, to its end."""
        assert self._transport is not None
        self._done = asyncio.get_running_loop().create_future()
        self._arrivals = Arrivals()
        self._arrivals.begin()
        head = (
            b"POST /generate_stream HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        )
        self._transport.write(head % len(body) + body)
        return await self._done

    def data_received(self, data: bytes) -> None:
        # A mark may be cut in two; the rest of one read is looked at again with the next.
        data = self._tail + data
        if tokens := data.count(_TOKEN):
            self._arrivals.note(tokens)
        self._tail = data[-len(_TOKEN) + 1 :]
        if data.endswith(_END) and self._done is not None:
            self._tail = b""
            self._done.set_result(self._arrivals)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(exc or ConnectionResetError("the engine hung up"))

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


class OurClient:
    """Through the generator, over one channel."""

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
async def open_clients(*, engine_port: int, target: str, api_key: str) -> AsyncIterator[dict[str, Client]]:
    """Both."""
    direct = DirectClient(engine_port)
    async with grpc.aio.insecure_channel(target) as channel:
        yield {"direct": direct, "ours": OurClient(stubs.GeneratorServiceStub(channel), api_key)}
    direct.close()


def _question(number: int) -> str:
    return f"Question {number}: what is a binnacle?"


def _texts(number: int, chunks: int) -> list[str]:
    return [f"Document {number}.{place}. {_FILLER}" for place in range(chunks)]


def _checked(arrivals: Arrivals, tokens: int) -> Arrivals:
    if sum(arrivals.counts) != tokens:
        raise RuntimeError(f"{tokens} tokens were asked for, {sum(arrivals.counts)} came")
    return arrivals
