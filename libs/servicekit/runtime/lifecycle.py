"""Brings a service up and takes it down, in one fixed order, every wait bounded.

Up: settings → adapters → gRPC with health NOT_SERVING → consumers begin to join → readiness pings → SERVING.
Down: NOT_SERVING → short drain → consumers stop → gRPC and HTTP stop → tasks → drain hooks → adapters in reverse.
Driven by `runtime.service.run`, and by `testing.in_process` in tests.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Generic

import structlog
from google.protobuf.descriptor_pool import Default

from servicekit.domain.identity import new_identity
from servicekit.errors import BinnacleError
from servicekit.ports.clock import Clock, SystemClock
from servicekit.rpc.auth import Authenticator, JwtTrust
from servicekit.rpc.call import RpcPolicy
from servicekit.rpc.interceptor import CallInterceptor
from servicekit.rpc.keyfiles import load_private_key
from servicekit.rpc.server import RpcServer, join_host_port
from servicekit.rpc.tokens import TokenMinter
from servicekit.runtime.declaration import RpcService, Service
from servicekit.runtime.readiness import Readiness
from servicekit.runtime.settings import ServiceSettings, SettingsT
from servicekit.runtime.stack import Dependency, Stack
from servicekit.runtime.status_http import StatusServer

if TYPE_CHECKING:  # uvicorn is no dependency of most services
    from servicekit.runtime.http_server import HttpServer

STEP_S = 15.0

Build = Callable[[SettingsT, Stack], Awaitable[Service]]

log = structlog.get_logger()


class Lifecycle(Generic[SettingsT]):
    """One service of this process. `up` once, then `down` once, whatever `up` came to."""

    def __init__(self, settings: SettingsT, build: Build[SettingsT], *, clock: Clock | None = None) -> None:
        self.settings = settings
        self.stopping = asyncio.Event()
        self.failure: BaseException | None = None
        self.port = self.metrics_port = self.http_port = 0
        self.readiness: Readiness | None = None
        self.stack = make_stack(settings, clock or SystemClock())
        self._build = build
        self._tasks: asyncio.TaskGroup | None = None
        self._running: list[asyncio.Task[None]] = []
        self._service: Service | None = None
        self._server: RpcServer | None = None
        self._status: StatusServer | None = None
        self._http: HttpServer | None = None
        self._joining: asyncio.Task[None] | None = None

    async def up(self, tasks: asyncio.TaskGroup) -> None:
        """Start everything, tasks in the given group; on return the ports are open and readiness is being watched."""
        self._tasks = tasks
        self._service = await self._build(self.settings, self.stack)
        if self._service.bus is not None and self._service.subscriptions:
            # Calls are answered while a consumer stands still: told, but not essential.
            self.stack.dependencies.append(Dependency("consumers", self._service.bus.check_consuming, essential=False))
        await self._start_rpc(self._service)
        if self._service.http is not None:
            await self._start_http(self._service)
        self._start_consumers(self._service)
        for task in self._service.tasks:
            self._spawn(task.name, task.run)
        assert self.readiness is not None
        self._spawn("readiness", self.readiness.watch)

    async def down(self) -> None:
        """Stop everything in order; a step that fails or hangs is logged, and the next one still runs."""
        settings = self.settings
        if self.readiness is not None:
            await self._step("leave", self.readiness.leave())
            await asyncio.sleep(settings.drain_s)
        if self._joining is not None and not self._joining.done():
            self._joining.cancel()
            await asyncio.wait({self._joining}, timeout=STEP_S)
        if self._service is not None and self._service.bus is not None:
            await self._step("consumers", self._service.bus.stop_consuming(), bound_s=STEP_S)
        if self._server is not None:
            await self._step("servers", self._stop_servers(self._server), bound_s=settings.grace_s + STEP_S)
        await self._cancel_tasks()
        for hook in self._service.drain if self._service else ():
            await self._step("drain", hook())
        if self._status is not None:
            await self._step("status", self._status.stop())
        await self.stack.close()

    async def _start_rpc(self, service: Service) -> None:
        settings = self.settings
        interceptor = CallInterceptor(_policy(settings, service, self.stack.authenticator))
        self._server = RpcServer(
            interceptor=interceptor,
            max_message_bytes=settings.max_message_bytes,
            max_concurrent_rpcs=settings.max_concurrent_rpcs,
        )
        for rpc in service.rpc_services:
            rpc.add_to_server(self._server.server)
            _check_methods(rpc)
        self.port = await self._server.start(
            join_host_port(settings.host, settings.port), names=[rpc.name for rpc in service.rpc_services]
        )
        self.readiness = Readiness(
            self._server,
            self.stack.dependencies,
            interval_s=settings.readiness_interval_s,
            timeout_s=settings.readiness_timeout_s,
            on_first_ready=self._log_ready,
        )
        readiness = self.readiness
        self._status = StatusServer(readiness.report, ready=lambda: readiness.ready)
        self.metrics_port = await self._status.start(settings.host, settings.chosen_metrics_port)

    async def _start_http(self, service: Service) -> None:
        from servicekit.runtime.http_server import HttpServer  # noqa: PLC0415  # uvicorn comes with the gateway

        assert service.http is not None
        self._http = HttpServer(service.http, grace_s=self.settings.grace_s)
        self.http_port = self._http.bind()
        self._spawn("http", self._http.serve)

    def _start_consumers(self, service: Service) -> None:
        """Join the groups beside everything else.

        After a kill -9 a group opens only once its dead member is given up; calls need not wait for that.
        """
        if service.bus is None or not service.subscriptions:
            return
        for subscription in service.subscriptions:
            service.bus.subscribe(subscription)
        self._joining = self._spawn("consumers", service.bus.start_consuming)

    def _log_ready(self) -> None:
        fields = {"http_port": self.http_port} if self.http_port else {}
        log.info(
            "service.ready",
            host=self.settings.host,
            port=self.port,
            metrics_port=self.metrics_port,
            producer=self.stack.identity.producer,
            accepts=self.stack.authenticator.accepts,
            **fields,
        )

    async def _stop_servers(self, server: RpcServer) -> None:
        stops = [server.stop(self.settings.grace_s)]
        if self._http is not None:
            stops.append(self._http.stop())
        await asyncio.gather(*stops)

    def _spawn(self, name: str, run: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        assert self._tasks is not None
        task = self._tasks.create_task(self._supervised(name, run), name=name)
        self._running.append(task)
        return task

    async def _supervised(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a task; one that raises takes the service down in order, to be started afresh from outside."""
        try:
            await run()
        except Exception as exc:
            log.exception("task.failed", task=name)
            self.failure = exc
            self.stopping.set()

    async def _cancel_tasks(self) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            _, pending = await asyncio.wait(self._running, timeout=STEP_S)
            for task in pending:
                log.error("task.does_not_end", task=task.get_name())

    async def _step(self, name: str, work: Awaitable[None], *, bound_s: float = STEP_S) -> None:
        try:
            async with asyncio.timeout(bound_s):
                await work
        except Exception:
            log.exception("shutdown.step_failed", step=name)


def make_stack(settings: ServiceSettings, clock: Clock) -> Stack:
    """The stack that `build` gets: who this process is, whom it believes, how it signs.

    Raises:
        InvalidRequest: a key file is missing or unusable.
    """
    name = settings.service_name()
    trust = None
    if settings.jwt_issuer is not None:
        trust = JwtTrust(
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            public_key_file=settings.jwt_public_key_file,
            jwks_file=settings.jwt_jwks_file,
            tenant_claim=settings.jwt_tenant_claim,
        )
    authenticator = Authenticator(
        audience=name,
        api_keys_file=settings.api_keys_file,
        token_public_key_file=settings.token_public_key_file,
        jwt_trust=trust,
        clock=clock,
    )
    key_file = settings.token_private_key_file
    minter = None if key_file is None else TokenMinter(load_private_key(key_file), clock=clock)
    identity = new_identity(name, start_time=clock.now())
    return Stack(identity=identity, clock=clock, authenticator=authenticator, minter=minter)


def _check_methods(rpc: RpcService) -> None:
    """What is declared must be methods of the service; a method left without a scope is closed, and said so."""
    methods = set(Default().FindServiceByName(rpc.name).methods_by_name)
    strangers = sorted((set(rpc.scopes) | rpc.long_lived) - methods)
    if strangers:
        raise ValueError(f"{rpc.name} has no method {', '.join(strangers)}; it has {', '.join(sorted(methods))}")
    closed = sorted(methods - set(rpc.scopes))
    if closed:
        log.warning("rpc.methods_closed", service_name=rpc.name, methods=closed)


def _policy(settings: ServiceSettings, service: Service, authenticator: Authenticator) -> RpcPolicy:
    scopes = {rpc.path_of(method): scope for rpc in service.rpc_services for method, scope in rpc.scopes.items()}
    long_lived = frozenset(rpc.path_of(method) for rpc in service.rpc_services for method in rpc.long_lived)
    return RpcPolicy(
        service=service.name,
        authenticator=authenticator,
        scopes=scopes,
        long_lived=long_lived,
        max_deadline_s=settings.max_deadline_s,
        slow_reader_s=settings.slow_reader_s,
    )


async def serve(settings: SettingsT, build: Build[SettingsT], *, stopping: asyncio.Event) -> BaseException | None:
    """Run a service until `stopping` is set or it fails; returns what it failed of.

    Raises:
        InvalidRequest: a key file is missing or unusable.
    """
    lifecycle = Lifecycle(settings, build)
    lifecycle.stopping = stopping
    async with asyncio.TaskGroup() as tasks:
        starting = tasks.create_task(_start(lifecycle, tasks))
        await stopping.wait()
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
        log.info("service.stopping")
        await lifecycle.down()
    log.info("service.stopped", failed=lifecycle.failure is not None)
    return lifecycle.failure


async def _start(lifecycle: Lifecycle[SettingsT], tasks: asyncio.TaskGroup) -> None:
    try:
        await lifecycle.up(tasks)
    except Exception as exc:
        if isinstance(exc, BinnacleError):
            log.error("service.start_failed", error=exc.message, reason=exc.reason)  # noqa: TRY400  # it says it all
        else:
            log.exception("service.start_failed")
        lifecycle.failure = exc
        lifecycle.stopping.set()
