"""The order in which a service comes up and goes down, and what happens when a step fails. Real ports, no process."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from binnacle.generator.v1 import generator_service_pb2_grpc as pb_grpc
from servicekit.errors import BackendUnavailable, NotReady
from servicekit.ports.event_bus import OutgoingEvent, Subscription
from servicekit.runtime.lifecycle import serve
from servicekit.runtime.service import BackgroundTask, HttpApp, RpcService, Service, Stack
from servicekit.runtime.settings import ServiceSettings, settings_config
from servicekit.testing.in_process import running_service

SERVICE = "binnacle.generator.v1.GeneratorService"


class Settings(ServiceSettings):
    """Free ports, quick pings."""

    model_config = settings_config("generator")
    port: int = 0
    metrics_port: int | None = 0
    drain_s: float = 0
    readiness_interval_s: float = 0.02


class Silent(pb_grpc.GeneratorServiceServicer):
    """Never called."""

    async def CountTokens(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        """A unary method."""

    async def ListModels(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        """Another unary method."""

    async def GenerateAnswer(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        """A streaming method."""


@dataclass
class Recorder:
    """Notes what happens, in order; stands in for a bus and an adapter."""

    events: list[str] = field(default_factory=list)
    away: bool = False
    stopped: bool = False
    pinged: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, event: str) -> None:
        """Remember what happened."""
        self.events.append(event)

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator["Recorder"]:
        """An adapter that notes its opening and closing."""
        self.note(f"open {name}")
        yield self
        self.note(f"close {name}")

    async def ping(self) -> None:
        """Answer, unless away."""
        self.pinged.set()
        if self.away:
            raise BackendUnavailable("away")

    def subscribe(self, subscription: Subscription) -> None:
        """As a bus."""
        self.note(f"subscribe {subscription.topic}")

    async def start_consuming(self) -> None:
        """As a bus."""
        self.note("start consuming")

    async def stop_consuming(self) -> None:
        """As a bus."""
        self.note("stop consuming")

    async def check_consuming(self) -> None:
        """As a bus."""
        if self.stopped:
            raise NotReady("dead letters stopped a consumer")

    async def publish(self, event: OutgoingEvent) -> None:
        """As a bus."""

    async def drain(self) -> None:
        """As a bus."""
        self.note("drain")

    async def work(self) -> None:
        """As a background task."""
        try:
            await asyncio.Event().wait()
        finally:
            self.note("task ends")

    async def build(self, _settings: Settings, stack: Stack) -> Service:
        """A service with one of everything."""
        await stack.enter("store", self.open("store"), ping=lambda opened: opened.ping())
        await stack.enter("bus", self.open("bus"))

        async def handle(_event: Any) -> None: ...

        return Service(
            "generator",
            (RpcService(SERVICE, partial(pb_grpc.add_GeneratorServiceServicer_to_server, Silent())),),
            bus=self,
            subscriptions=(Subscription("topic", "group", handle),),
            tasks=(BackgroundTask("worker", self.work),),
            drain=(self.drain,),
        )


async def health_of(port: int, service: str = "") -> int:
    """What a health client is told."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    return answer.status


async def http_get(port: int, path: str, *, method: str = "GET") -> tuple[int, str]:
    """Status and body of one request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body


async def until(condition: Any) -> None:
    """Wait for a condition of the running service."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_order_up_and_down() -> None:
    """Adapters, then consumers; down: consumers, tasks, drain hooks, adapters in reverse."""
    recorder = Recorder()
    async with running_service(Settings(), recorder.build):
        assert recorder.events == ["open store", "open bus", "subscribe topic", "start consuming"]
        recorder.events.clear()
    assert recorder.events == ["stop consuming", "task ends", "drain", "close bus", "close store"]


async def test_serving_only_once_dependencies_answer() -> None:
    """Health is NOT_SERVING, /healthz 503, until every essential ping has succeeded; then SERVING for each name."""
    recorder = Recorder(away=True)
    async with running_service(Settings(), recorder.build, wait_ready=False) as lifecycle:
        await recorder.pinged.wait()
        assert await health_of(lifecycle.port) == health_pb2.HealthCheckResponse.NOT_SERVING
        code, body = await http_get(lifecycle.metrics_port, "/healthz")
        assert code == 503
        report = json.loads(body)
        assert report["status"] == "not_serving"
        assert not report["dependencies"]["store"]["ok"]
        recorder.away = False
        await lifecycle.readiness.first_ready.wait()
        assert await health_of(lifecycle.port) == health_pb2.HealthCheckResponse.SERVING
        assert await health_of(lifecycle.port, SERVICE) == health_pb2.HealthCheckResponse.SERVING
        code, body = await http_get(lifecycle.metrics_port, "/healthz")
        assert (code, json.loads(body)["status"]) == (200, "serving")


async def test_lost_dependency_ends_readiness_until_it_is_back() -> None:
    """Two failed pings in a row make the service NOT_SERVING; an answer makes it SERVING again."""
    recorder = Recorder()
    async with running_service(Settings(), recorder.build) as lifecycle:
        recorder.away = True
        await until(lambda: not lifecycle.readiness.ready)
        assert await health_of(lifecycle.port) == health_pb2.HealthCheckResponse.NOT_SERVING
        recorder.away = False
        await until(lambda: lifecycle.readiness.ready)


async def test_a_stopped_consumer_is_told_and_calls_are_still_answered() -> None:
    """Health pages say which consumer stands still and why; the service goes on serving."""
    recorder = Recorder()
    async with running_service(Settings(), recorder.build) as lifecycle:
        recorder.stopped = True
        await until(lambda: not lifecycle.readiness.states["consumers"].ok)
        code, body = await http_get(lifecycle.metrics_port, "/healthz")
        assert (code, json.loads(body)["status"]) == (200, "serving")
        assert json.loads(body)["dependencies"]["consumers"]["error"] == "NotReady: dead letters stopped a consumer"


async def test_metrics_are_exposed() -> None:
    """/metrics speaks Prometheus' text format; other paths and methods are refused."""
    async with running_service(Settings(), Recorder().build) as lifecycle:
        code, body = await http_get(lifecycle.metrics_port, "/metrics")
        assert code == 200
        assert 'binnacle_dependency_up{dependency="store"} 1.0' in body
        assert "binnacle_rpc_latency_seconds" in body
        assert await http_get(lifecycle.metrics_port, "/metrics", method="HEAD") == (200, "")
        assert (await http_get(lifecycle.metrics_port, "/nope"))[0] == 404
        assert (await http_get(lifecycle.metrics_port, "/healthz", method="POST"))[0] == 405
        _, writer = await asyncio.open_connection("127.0.0.1", lifecycle.metrics_port)
        writer.write(b"\x00" * 100_000 + b"\r\n\r\n")
        writer.close()
        assert (await http_get(lifecycle.metrics_port, "/healthz"))[0] == 200


async def test_failing_steps_do_not_stop_the_shutdown() -> None:
    """A drain hook that raises, an adapter that does not close: logged, and the rest is still closed."""
    recorder = Recorder()

    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        yield
        raise RuntimeError("will not close")

    async def bad_drain() -> None:
        raise RuntimeError("will not drain")

    async def build(settings: Settings, stack: Stack) -> Service:
        """A service with one of everything."""
        service = await recorder.build(settings, stack)
        await stack.enter("broken", broken())
        return Service(service.name, service.rpc_services, bus=service.bus, drain=(bad_drain, recorder.drain))

    async with running_service(Settings(), build):
        recorder.events.clear()
    assert recorder.events == ["stop consuming", "drain", "close bus", "close store"]


async def test_failed_start_closes_what_was_opened() -> None:
    """A build that fails midway leaves nothing open, and the service ends badly."""
    recorder = Recorder()

    async def build(_settings: Settings, stack: Stack) -> Service:
        """A service with one of everything."""
        await stack.enter("store", recorder.open("store"))
        raise BackendUnavailable("no bus")

    failure = await serve(Settings(), build, stopping=asyncio.Event())
    assert isinstance(failure, BackendUnavailable)
    assert recorder.events == ["open store", "close store"]


async def test_failed_task_takes_the_service_down_in_order() -> None:
    """A background task that raises ends the process badly, but not before a clean shutdown."""
    recorder = Recorder()

    async def fail() -> None:
        raise RuntimeError("broken worker")

    async def build(settings: Settings, stack: Stack) -> Service:
        """A service with one of everything."""
        service = await recorder.build(settings, stack)
        return Service(service.name, service.rpc_services, tasks=(BackgroundTask("worker", fail),), drain=service.drain)

    async with asyncio.timeout(10):
        failure = await serve(Settings(), build, stopping=asyncio.Event())
    assert str(failure) == "broken worker"
    assert recorder.events[-3:] == ["drain", "close bus", "close store"]


async def test_stop_during_start_is_obeyed() -> None:
    """A signal that comes while adapters are still opening ends the start; the process ends well."""
    recorder, stopping, opening = Recorder(), asyncio.Event(), asyncio.Event()

    async def build(_settings: Settings, stack: Stack) -> Service:
        """A service with one of everything."""
        await stack.enter("store", recorder.open("store"))
        opening.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with asyncio.TaskGroup() as group:
        serving = group.create_task(serve(Settings(), build, stopping=stopping))
        await opening.wait()
        stopping.set()
        async with asyncio.timeout(5):
            assert await serving is None
    assert recorder.events == ["open store", "close store"]


async def test_scope_of_no_method_stops_the_start() -> None:
    """A misspelt method in the declared scopes is a mistake told at once, not a method closed by surprise."""

    async def build(_settings: Settings, _stack: Stack) -> Service:
        add = partial(pb_grpc.add_GeneratorServiceServicer_to_server, Silent())
        return Service("generator", (RpcService(SERVICE, add, scopes={"CountToken": "generate"}),))

    with pytest.raises(ValueError, match="no method CountToken; it has CompleteAnswer, CountTokens"):
        async with running_service(Settings(), build):
            pass


async def test_taken_port_is_named() -> None:
    """A port that is in use is an error that names it."""
    async with running_service(Settings(), Recorder().build) as lifecycle:
        with pytest.raises(BackendUnavailable, match=f"127.0.0.1:{lifecycle.port}"):
            async with running_service(Settings(port=lifecycle.port), Recorder().build):
                pass


async def test_http_application_is_served_and_drained() -> None:
    """The ASGI application answers on its own port while the service runs, and a request in flight is finished."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            begun.set()
            await go_on.wait()
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"connection", b"close"), (b"content-length", b"5")],
            }
        )
        await send({"type": "http.response.body", "body": b"hello"})

    async def build(settings: Settings, stack: Stack) -> Service:
        """A service with one of everything."""
        service = await Recorder().build(settings, stack)
        return Service(service.name, service.rpc_services, http=HttpApp(app, "127.0.0.1", 0))

    async with running_service(Settings(), build) as lifecycle:
        assert await http_get(lifecycle.http_port, "/") == (200, "hello")
        slow = asyncio.ensure_future(http_get(lifecycle.http_port, "/slow"))
        await begun.wait()
        asyncio.get_running_loop().call_later(0.1, go_on.set)
    assert await slow == (200, "hello")
