"""The least that can stand between an engine and a gRPC caller: what the benchmark of the generator holds against ours.

`python -m tests.bench._generator_relay ENGINE_PORT`, started by `_generator_stand.py`. Nothing is packed, chosen,
counted, checked or recorded: each token that comes is written as one and the same message, over the same `grpc.aio`, on
the same event loop as the services'. What it adds is the price of the road, not of the generator.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

from binnacle.generator.v1 import generator_service_pb2 as rpc
from tests.bench._generator_clients import Connections, engine_body

MARK = "relay at"
_SERVICE = rpc.DESCRIPTOR.services_by_name["GeneratorService"].full_name
_TOKEN = rpc.GenerateAnswerResponse(token=rpc.TokenDelta(text="word ", token_count=1)).SerializeToString()


class Relay:
    """Answers `GenerateAnswer` by the engine's tokens."""

    def __init__(self, engine_port: int) -> None:
        self._connections = Connections(engine_port)

    async def generate(self, request: rpc.GenerateAnswerRequest, context: Any) -> AsyncIterator[bytes]:
        """One message for each token."""
        came: asyncio.Queue[int] = asyncio.Queue()
        texts = [chunk.chunk.text for chunk in request.chunks]
        body = engine_body(texts, request.question, request.sampling.max_output_tokens)
        async with self._connections.one() as connection:
            connection.ask(body, on_tokens=came.put_nowait, on_end=lambda: came.put_nowait(0))
            while tokens := await came.get():
                for _ in range(tokens):
                    yield _TOKEN


async def serve(engine_port: int) -> None:
    """Listen until the process is stopped."""
    server = grpc.aio.server()
    method: grpc.RpcMethodHandler[rpc.GenerateAnswerRequest, bytes] = grpc.unary_stream_rpc_method_handler(
        Relay(engine_port).generate, request_deserializer=rpc.GenerateAnswerRequest.FromString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"GenerateAnswer": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"{MARK} {port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
