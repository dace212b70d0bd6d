"""The embedded broker: a Kafka that needs nothing but Python packages, in memory and for trying things.

Run by the supervisor as `python -m services.local.broker --address-file PATH`, or by hand with `--port N`.

The mock cluster binds to a port of its own choice. `--port` is a doorway: clients ask there for the cluster's
metadata, learn the real address and talk to it directly. A broker that is started again at the same `--port`
is therefore found again, though it is reborn empty and elsewhere.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servicekit.events.topics import TOPICS, dead_letter_topic, replay_topic
from services.local.mock_cluster import MockCluster

_CHUNK_BYTES = 65536
_WAKE_EVERY_S = 0.005
WHAT_IT_LACKS = (
    "in memory: gone when it stops; keeps about 5 MiB a partition and evicts what is older, read or not; "
    "one live member a consumer group; no retention, compaction, lookup by time or topic administration"
)


@dataclass(frozen=True, slots=True)
class BrokerAddresses:
    """`bootstrap` is stable over restarts, `broker` is where the cluster itself listens."""

    bootstrap: str
    broker: str


@asynccontextmanager
async def run_broker(*, port: int = 0) -> AsyncIterator[BrokerAddresses]:
    """A broker with every registered topic; `port` 0 takes a free one for the doorway."""
    cluster = MockCluster()
    try:
        host, _, broker_port = cluster.address.partition(":")
        await _create_topics(cluster, host, int(broker_port))
        doorway = await asyncio.start_server(_forward_to(host, int(broker_port)), "127.0.0.1", port)
        async with doorway:
            opened = doorway.sockets[0].getsockname()[1]
            yield BrokerAddresses(bootstrap=f"127.0.0.1:{opened}", broker=cluster.address)
    finally:
        cluster.close()


async def _create_topics(cluster: MockCluster, host: str, port: int) -> None:
    """Every topic, and the dead letters and replays of each consumer, with the partitions of the registry.

    The cluster's thread misses some of its wake-ups and then sleeps for a second; connecting wakes it.
    """
    creating = asyncio.ensure_future(asyncio.to_thread(_create_all, cluster))
    while not creating.done():
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        await asyncio.wait([creating], timeout=_WAKE_EVERY_S)
    await creating


def _create_all(cluster: MockCluster) -> None:
    for spec in TOPICS.values():
        cluster.create_topic(spec.name, partitions=spec.partitions)
        for consumer in spec.consumers:
            cluster.create_topic(dead_letter_topic(spec.name, consumer), partitions=spec.partitions)
            cluster.create_topic(replay_topic(spec.name, consumer), partitions=spec.partitions)


def _forward_to(
    host: str, port: int
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        async with asyncio.TaskGroup() as directions:
            directions.create_task(_pump(reader, far_writer))
            directions.create_task(_pump(far_reader, writer))

    return forward


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until either side closes."""
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    writer.close()


async def _serve(port: int, address_file: Path | None) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with run_broker(port=port or _port_before(address_file)) as addresses:
        if address_file is not None:
            _write(address_file, addresses.bootstrap)
        sys.stdout.write(f"broker ready: bootstrap={addresses.bootstrap} broker={addresses.broker} ({WHAT_IT_LACKS})\n")
        sys.stdout.flush()
        await stopped.wait()


def _port_before(address_file: Path | None) -> int:
    """The port of the broker that wrote the file and is gone; 0 if there is none."""
    if address_file is None or not address_file.exists():
        return 0
    _, _, port = address_file.read_text(encoding="ascii").strip().rpartition(":")
    return int(port) if port.isdecimal() else 0


def _write(address_file: Path, address: str) -> None:
    """Write at once, so that a reader sees all of it or nothing."""
    draft = address_file.with_suffix(".new")
    draft.write_text(address + "\n", encoding="ascii")
    draft.replace(address_file)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m services.local.broker", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="where clients bootstrap; 0: any free port")
    parser.add_argument(
        "--address-file",
        type=Path,
        help="written with the bootstrap address once clients may come; a port found there is taken again",
    )
    given = parser.parse_args(arguments)
    asyncio.run(_serve(given.port, given.address_file))


if __name__ == "__main__":
    main()
