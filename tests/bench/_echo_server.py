"""A raw grpc.aio echo in a process of its own: what a call costs before Binnacle does anything. For answer_path."""

import asyncio
import sys

import grpc


async def _echo(request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
    return request


async def main() -> None:
    """Serve on a free port, print it, until killed."""
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(_echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
