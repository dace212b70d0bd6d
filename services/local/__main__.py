"""`python -m services.local`: the whole of Binnacle on this machine, until it is interrupted.

Parses the command line and says what runs where; the work is in `supervisor.py`.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from servicekit.errors import BinnacleError, InvalidRequest, NotReady
from services.local.layout import PREFERRED_PORTS, Layout, choose_ports
from services.local.native_install import install_kafka
from services.local.native_kafka import NativeKafka
from services.local.native_weaviate import NativeWeaviate, on_ports
from services.local.process import StartFailed
from services.local.supervisor import LocalStack, run_stack

_INTERRUPTED = 130

EMBEDDED_BROKER_WARNING = """\
  The event broker is embedded, for trying things out. It keeps records in memory only: a restart of the stack
  forgets what was not consumed, and it evicts acknowledged records past about 5 MiB a partition (an eviction before
  it was read is reported as a gap). It has no retention, compaction, time lookup or topic administration.
  Idempotency keys, conversations and indexing operations are in memory too. ClickHouse and the vector store are on
  disk. Durable: `make up SERVERS=native` (Java 17 and Maven), or start a Kafka and run
  `python -m services.local --kafka HOST:PORT`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM; 0: a clean stop, 1: something did not start, 2: wrong usage or a folder in use."""
    options = _parser().parse_args(arguments)
    try:
        ports = choose_ports(dict(options.port), free=options.free_ports)
    except BinnacleError as exc:
        say(exc.message)
        return 2
    with ExitStack() as cleanup:
        data_dir = options.data
        if options.ephemeral:
            data_dir = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="binnacle-")))
        weaviate = on_ports(data_dir / "weaviate", ports.by_name) if options.vector_store == "weaviate" else None
        layout = Layout(data_dir, ports, overrides=_overrides(options.vector_store, weaviate))
        native = None if options.kafka else choose_native(layout, servers=options.servers)
        return run_to_end(_run(layout, kafka=options.kafka, native=native, weaviate=weaviate))


def _overrides(vector_store: str, weaviate: NativeWeaviate | None) -> dict[str, str]:
    url = weaviate.url if weaviate is not None else vector_store
    return {} if vector_store == "lancedb" else {"BINNACLE_RETRIEVER__VECTOR_STORE_URL": url}


def choose_native(layout: Layout, *, servers: str) -> NativeKafka | None:
    """The durable broker of this stack, or None for the embedded one; `auto` says why it takes that."""
    if servers == "embedded":
        return None
    if servers == "auto":
        try:
            install_kafka()
        except NotReady as exc:
            say(f"no durable Kafka on this machine, the embedded broker takes its place: {exc.message}")
            return None
    return NativeKafka(layout.data_dir / "kafka", layout.ports["kafka"], layout.ports["kafka.controller"])


def run_to_end(work: Coroutine[None, None, None]) -> int:
    """Run it; 1 when a process of the stack did not start, 2 when none could, after saying which and why."""
    status = 0
    try:
        asyncio.run(work)
    except* StartFailed as failed:
        for exc in _leaves(failed):
            say(str(exc))
        status = 1
    except* InvalidRequest as refused:
        for exc in _leaves(refused):
            say(str(exc))
        status = 2
    except* KeyboardInterrupt:
        say("interrupted")
        status = _INTERRUPTED
    return status


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from _leaves(exc)
        else:
            yield exc


async def _run(
    layout: Layout, *, kafka: str | None, native: NativeKafka | None, weaviate: NativeWeaviate | None
) -> None:
    stopped, up = asyncio.Event(), asyncio.Event()
    loop, running = asyncio.get_running_loop(), asyncio.current_task()
    assert running is not None

    def stop() -> None:
        if not up.is_set() and not stopped.is_set():
            running.cancel()  # what has started by now is stopped again
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        async with run_stack(layout, say=say, kafka=kafka, native=native, weaviate=weaviate) as stack:
            up.set()
            introduce(stack)
            await stopped.wait()
            say("stopping")
    except asyncio.CancelledError:
        if not stopped.is_set():
            raise
    say("stopped")


def introduce(stack: LocalStack) -> None:
    """Say what runs where and how to use it."""
    ports = stack.layout.ports
    lines = [
        "",
        f"  gRPC       {ports.address('gateway')}   (every service: `binnacle status`)",
        f"  OpenAI API http://{ports.address('gateway.http')}/v1",
        f"  Kafka      {stack.kafka}",
        f"  ClickHouse http://{ports.address('clickhouse')}/  database binnacle",
        f"  data       {stack.layout.data_dir}   (logs below it)",
        "",
        '  In another terminal: eval "$(.venv/bin/binnacle env)", then .venv/bin/binnacle ask "…"',
        "",
    ]
    if stack.embedded_broker:
        lines += [EMBEDDED_BROKER_WARNING, ""]
    if ports.moved:
        lines.insert(0, f"  usual port taken, another chosen for: {', '.join(ports.moved)}")
    say("Binnacle is up.\n" + "\n".join(lines))


def say(line: str) -> None:
    """One line for the person at the terminal."""
    sys.stderr.write(f"» {line}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.local", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path(".var/local"), help="folder for data, keys and logs (default: .var/local)"
    )
    parser.add_argument("--ephemeral", action="store_true", help="keep everything in a folder that goes at the end")
    broker = parser.add_mutually_exclusive_group()
    broker.add_argument("--kafka", metavar="HOST:PORT", help="a Kafka that runs already, not a broker of the stack")
    broker.add_argument(
        "--servers",
        choices=("embedded", "native", "auto"),
        default="embedded",
        help="the stack's broker: embedded (in memory), native (Apache Kafka on disk, needs Java and Maven), "
        "auto: native where the machine can run it (default: embedded)",
    )
    parser.add_argument(
        "--vector-store",
        metavar="STORE",
        default="lancedb",
        help="where documents are kept: lancedb (in the stack's folder), weaviate (a native one of the stack, needs "
        "Go once), or the URL of one that runs already (default: lancedb)",
    )
    parser.add_argument(
        "--port",
        metavar="NAME=PORT",
        type=_port,
        action="append",
        default=[],
        help=f"fix a port; names: {', '.join(PREFERRED_PORTS)}",
    )
    parser.add_argument("--free-ports", action="store_true", help="choose free ports for all that is not fixed")
    return parser


def _port(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not number.isdecimal() or int(number) > 65_535:  # noqa: PLR2004  # the largest port
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PORT, such as gateway=7700")
    return name, int(number)


if __name__ == "__main__":
    sys.exit(main())
