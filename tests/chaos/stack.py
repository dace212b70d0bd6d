"""The real stack on the native Kafka, with proxies where a process waits for an answer. Opened by `sink.py`."""

import dataclasses
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from binnacle_client.answers import DocumentInput
from binnacle_client.client import Binnacle, open_client
from binnacle_client.connection import Connection
from servicekit.adapters.registry import open_analytics_store
from servicekit.ports.analytics_store import AnalyticsStore
from services.local.layout import Layout, choose_ports
from services.local.native_kafka import Listener, NativeKafka
from services.local.supervisor import LocalStack, run_stack
from tests.chaos.faults import Aim
from tests.chaos.proxies import HOST, InsertWatch, ProduceWatch, Trap, open_proxy

_MAX_BACKOFF_S = 0.5
_DOCUMENTS = {
    "harbour.md": "# Fees\n\nMooring costs nine euros a night.\n",
    "compass.txt": "The quadrantal spheres beside the compass correct for soft iron.\n",
    "galley.txt": "Fresh bread is baked on Tuesdays and Fridays.\n",
}


@dataclass(frozen=True)
class ChaosStack:
    """A running stack, its callers' client, its store and the traps in its proxies."""

    stack: LocalStack
    kafka: NativeKafka
    binnacle: Binnacle
    store: AnalyticsStore
    traps: Mapping[Aim, Trap]


@asynccontextmanager
async def open_chaos_stack(folder: Path, *, say: Callable[[str], None]) -> AsyncIterator[ChaosStack]:
    """A stack with three small documents, in which a process that was killed is back soon, however often."""
    ports = choose_ports({}, free=True)
    inner_port = _free_port()
    traps = {Aim.INSERT_COMMIT: Trap(), Aim.ACKNOWLEDGEMENT: Trap()}
    async with AsyncExitStack() as opened:
        store_port = await opened.enter_async_context(
            open_proxy(lambda: ports["clickhouse"], watch=InsertWatch, trap=traps[Aim.INSERT_COMMIT])
        )
        kafka_port = await opened.enter_async_context(
            open_proxy(lambda: inner_port, watch=ProduceWatch, trap=traps[Aim.ACKNOWLEDGEMENT])
        )
        kafka = NativeKafka(
            folder / "kafka", ports["kafka"], ports["kafka.controller"], (Listener("WATCHED", inner_port, kafka_port),)
        )
        overrides = {
            "BINNACLE_GATEWAY__EVENT_BUS_URL": f"kafka://{HOST}:{kafka_port}",
            "BINNACLE_ANALYTICS__ANALYTICS_STORE_URL": f"clickhouse://{HOST}:{store_port}/binnacle",
            # A static member is back without waiting for its predecessor's session.
            "BINNACLE_ANALYTICS__EVENT_BUS_URL": f"kafka://{kafka.address}?instance=chaos",
            "BINNACLE_ANALYTICS__BATCH_AGE_S": "0.2",
            "BINNACLE_ANALYTICS__ROLLUP_EVERY_S": "1",
        }
        layout = Layout(folder, ports, overrides=overrides)
        stack = await opened.enter_async_context(run_stack(layout, say=say, native=kafka))
        for process in stack.processes.values():
            process.command = dataclasses.replace(process.command, max_backoff_s=_MAX_BACKOFF_S)
        binnacle = await opened.enter_async_context(open_client(Connection.from_stack_file(layout.stack_file)))
        store = await opened.enter_async_context(open_analytics_store(layout.clickhouse_url))
        await binnacle.index(
            [DocumentInput(document_id=name, content=text.encode()) for name, text in _DOCUMENTS.items()]
        )
        yield ChaosStack(stack, kafka, binnacle, store, traps)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
