"""Runs the whole stack on one machine: a broker, embedded ClickHouse, one process for each service.

Owns the order of start and stop; called by `__main__.py`, by the demo and by the tests of the whole stack.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

from servicekit.adapters.kafka.address import parse_address
from servicekit.adapters.kafka.session import find_brokers
from servicekit.adapters.registry import open_analytics_store
from servicekit.errors import NotReady
from services.local.eviction_watch import watch_evictions
from services.local.http_answer import answers_http
from services.local.layout import SERVICES, Layout, inherited_environment
from services.local.native_kafka import NativeKafka
from services.local.native_server import NativeServer
from services.local.native_weaviate import NativeWeaviate
from services.local.process import Command, StartFailed, SupervisedProcess

_FIRST = ("analytics",)  # its migrations make the tables that others read
_KAFKA_WITHIN_S = 10.0
_KAFKA_AGAIN_S = 0.5
_BROKER_ADDRESS_FILE = "broker.address"


class LocalStack:
    """The running stack; made by `run_stack`."""

    def __init__(
        self,
        layout: Layout,
        *,
        say: Callable[[str], None],
        kafka: str | None,
        native: NativeKafka | None,
        weaviate: NativeWeaviate | None = None,
    ) -> None:
        self.layout = layout
        self.api_key = layout.prepare()
        self.kafka = kafka or ""
        self._given_kafka = kafka
        self._native = native
        self._weaviate = weaviate
        self._say = say
        self._processes: dict[str, SupervisedProcess] = {}
        self._watchers: asyncio.TaskGroup | None = None
        self._eviction_watch: asyncio.Task[None] | None = None

    @property
    def processes(self) -> dict[str, SupervisedProcess]:
        """Every process by name, in the order in which they were started."""
        return self._processes

    @property
    def embedded_broker(self) -> bool:
        """Whether the broker is the embedded one, which forgets."""
        return self._given_kafka is None and self._native is None

    async def start(self, watchers: asyncio.TaskGroup) -> None:
        """Start everything; returns when every service answers.

        Raises:
            StartFailed: one of them did not start; the caller stops the others.
        """
        self._watchers = watchers
        if self._given_kafka is not None:
            await _reach_kafka(self._given_kafka)
        elif self._native is not None:
            await self._start(await native_command("broker", self._native))
            self.kafka = self._native.address
        else:
            await self._start(self._broker())
            self.kafka = self.layout.ports.address("kafka")
        if self._weaviate is not None:
            await self._start(await native_command("weaviate", self._weaviate))
        await self._start(self._clickhouse())
        for service in _FIRST:
            await self._start(self._service(service))
        async with asyncio.TaskGroup() as starting:
            for service in SERVICES:
                if service not in _FIRST:
                    starting.create_task(self._start(self._service(service)))
        if self.embedded_broker:
            self._eviction_watch = watchers.create_task(self._watch_evictions())
        self.layout.write_stack_file(api_key=self.api_key, kafka=self.kafka)

    async def _watch_evictions(self) -> None:
        async with open_analytics_store(self.layout.clickhouse_url) as store:
            await watch_evictions(self.kafka, store, say=self._say)

    async def stop(self) -> None:
        """Stop the front door first, then who reads what it wrote, the stores last."""
        if self._eviction_watch is not None:
            self._eviction_watch.cancel()
        self.layout.stack_file.unlink(missing_ok=True)
        await self._stop("gateway")
        await self._stop("retriever", "generator", "guardrail")
        await self._stop("evaluator", "drift_monitor")
        await self._stop("analytics")
        await self._stop("clickhouse", "broker", "weaviate")

    async def _start(self, command: Command) -> None:
        process = SupervisedProcess(command, log_dir=self.layout.log_dir, say=self._say)
        self._processes[command.name] = process
        await process.start()
        self._say(f"{command.name} is ready (process {process.pid})")
        if self._watchers is not None:
            self._watchers.create_task(process.watch())

    async def _stop(self, *names: str) -> None:
        await asyncio.gather(*(self._processes[name].stop() for name in names if name in self._processes))

    def _broker(self) -> Command:
        address_file = self.layout.data_dir / _BROKER_ADDRESS_FILE
        address_file.unlink(missing_ok=True)

        async def ready() -> bool:
            return address_file.exists() and bool(address_file.read_text(encoding="ascii").strip())

        port = str(self.layout.ports["kafka"])
        argv = [sys.executable, "-m", "services.local.broker", "--port", port, "--address-file", str(address_file)]
        return Command("broker", argv, inherited_environment(), ready)

    def _clickhouse(self) -> Command:
        port = self.layout.ports["clickhouse"]
        data = str(self.layout.data_dir / "clickhouse")
        argv = [sys.executable, "-m", "services.local.clickhouse_front", "--port", str(port), "--data", data]
        return Command(
            "clickhouse", argv, inherited_environment(), lambda: asyncio.to_thread(answers_http, port, "/ping")
        )

    def _service(self, service: str) -> Command:
        port = self.layout.ports[f"{service}.metrics"]
        # A member of a group that died is missed after 3 s on a broker of the stack; Kafka's own least is 6 s.
        options = "?session_s=3" if self._given_kafka is None else ""
        env = self.layout.environment(service, event_bus_url=f"kafka://{self.kafka}{options}")
        argv = [sys.executable, "-m", f"services.{service}"]
        return Command(service, argv, env, lambda: asyncio.to_thread(answers_http, port, "/healthz"))


@asynccontextmanager
async def run_stack(
    layout: Layout,
    *,
    say: Callable[[str], None],
    kafka: str | None = None,
    native: NativeKafka | None = None,
    weaviate: NativeWeaviate | None = None,
) -> AsyncIterator[LocalStack]:
    """Start the stack, watch it while the block runs, and stop it whatever happened.

    `kafka` names a broker that runs already (`host:port`), `native` one to start with the stack; without either the
    embedded one is started. `weaviate` is one to start with the stack, for a retriever whose settings name it.

    Raises:
        InvalidRequest: another stack runs in the layout's folder.
    """
    with layout.held():
        stack = LocalStack(layout, say=say, kafka=kafka, native=native, weaviate=weaviate)
        async with asyncio.TaskGroup() as watchers:
            try:
                await stack.start(watchers)
                yield stack
            finally:
                await stack.stop()


async def native_command(name: str, native: NativeServer) -> Command:
    """What runs a native server.

    Raises:
        StartFailed: it can be neither run nor installed here.
    """
    try:
        argv = await asyncio.to_thread(native.prepare)
    except NotReady as exc:
        raise StartFailed(exc.message) from exc
    environment = {**inherited_environment(), **native.environment()}
    return Command(name, argv, environment, partial(asyncio.to_thread, native.answers))


async def _reach_kafka(address: str) -> None:
    """Every process would wait for it in vain, and then say so each in its own log.

    Raises:
        InvalidRequest: the address is none.
        StartFailed: no broker answers there.
    """
    servers = parse_address(f"kafka://{address}").servers
    with suppress(TimeoutError):
        async with asyncio.timeout(_KAFKA_WITHIN_S):
            while not await find_brokers(servers):  # noqa: ASYNC110  # a broker that comes up does not call back
                await asyncio.sleep(_KAFKA_AGAIN_S)
            return
    raise StartFailed(
        f"no Kafka broker answers at {address} within {_KAFKA_WITHIN_S:g} s: start it, or leave out --kafka"
    )
