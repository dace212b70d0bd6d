"""Runs the contract server as a process: `python -m servicekit.testing.tgi_server --port 8080`.

Every dial is a flag; prints its address once it listens, and ends on SIGINT or SIGTERM.
"""

import argparse
import asyncio
import inspect
import signal
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from servicekit.testing.tgi_server.dials import Dials, Fault
from servicekit.testing.tgi_server.server import open_tgi_server


async def serve(dials: Dials, *, host: str, port: int) -> None:
    """Serve until a signal ends it."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    async with open_tgi_server(dials, host=host, port=port) as server:
        sys.stdout.write(f"contract server at {server.url}\n")
        sys.stdout.flush()
        await stop.wait()


def _reader(default: object) -> Callable[[str], Any]:
    """How a flag's text becomes the dial's type."""
    if isinstance(default, bool):
        return lambda text: text.lower() in {"1", "true", "yes"}
    return type(default)


def main() -> None:
    """Read the flags and serve."""
    parser = argparse.ArgumentParser(
        prog="python -m servicekit.testing.tgi_server",
        description=__doc__,
        epilog=f"What the dials do:\n\n{inspect.getdoc(Dials)}\n\nFaults:\n\n{inspect.getdoc(Fault)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    defaults = Dials()
    for dial in fields(Dials):
        value: Any = getattr(defaults, dial.name)
        choices = list(Fault) if isinstance(value, Fault) else None
        told = f"default: {value!s}" if value != "" else "default: none"
        parser.add_argument(
            f"--{dial.name.replace('_', '-')}", type=_reader(value), default=value, choices=choices, help=told
        )
    flags = vars(parser.parse_args())
    host, port = flags.pop("host"), flags.pop("port")
    asyncio.run(serve(Dials(**flags), host=host, port=port))


if __name__ == "__main__":
    main()
