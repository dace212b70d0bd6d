"""A generator whose behaviour each test scripts, served for real by the runtime. Used by this folder's tests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from binnacle.generator.v1 import generator_service_pb2 as pb
from binnacle.generator.v1 import generator_service_pb2_grpc as pb_grpc
from servicekit.runtime.lifecycle import Lifecycle
from servicekit.runtime.service import RpcService, Service, Stack
from servicekit.runtime.settings import ServiceSettings, settings_config
from servicekit.testing.in_process import Trust, running_service

SERVICE = "binnacle.generator.v1.GeneratorService"


class Settings(ServiceSettings):
    """Free ports, nothing to wait for."""

    model_config = settings_config("generator")
    port: int = 0


@dataclass
class Script(pb_grpc.GeneratorServiceServicer):
    """What each method does; `seen` collects what a method noted."""

    unary: Callable[[Any, Any], Awaitable[Any]] | None = None
    stream: Callable[[Any, Any], AsyncIterator[Any]] | None = None
    listing: Callable[[Any, Any], Awaitable[Any]] | None = None
    seen: list[Any] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def CountTokens(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        """A unary method."""
        return await self.unary(request, context) if self.unary else pb.CountTokensResponse()

    async def ListModels(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        """Another unary method."""
        return await self.listing(request, context) if self.listing else pb.ListModelsResponse()

    async def GenerateAnswer(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802  # gRPC's name
        """A streaming method."""
        assert self.stream
        try:
            async for response in self.stream(request, context):
                yield response
        finally:
            self.ended.set()


@dataclass
class Serving:
    """The running service and what it takes to call it."""

    lifecycle: Lifecycle[Settings]
    trust: Trust
    address: str


Serve = Callable[..., AbstractAsyncContextManager[Serving]]


@pytest.fixture
def trust(tmp_path: Path) -> Trust:
    """A key pair in the test's folder."""
    return Trust.create(tmp_path)


@pytest.fixture
def serve(trust: Trust) -> Serve:
    """Starts the service with a script, and with settings if given."""

    @asynccontextmanager
    async def start(
        script: Script,
        *,
        scopes: dict[str, str] | None = None,
        long_lived: frozenset[str] = frozenset(),
        **settings: Any,
    ) -> AsyncIterator[Serving]:
        declared = dict.fromkeys(("CountTokens", "ListModels", "GenerateAnswer"), "generate")
        add = partial(pb_grpc.add_GeneratorServiceServicer_to_server, script)
        rpc = RpcService(SERVICE, add, scopes=declared if scopes is None else scopes, long_lived=long_lived)

        async def build(_settings: Settings, _stack: Stack) -> Service:
            return Service("generator", (rpc,))

        values = {"metrics_port": 0, "drain_s": 0, "grace_s": 1, "token_public_key_file": trust.public_key_file}
        async with running_service(Settings(**(values | settings)), build) as lifecycle:
            yield Serving(lifecycle, trust, f"127.0.0.1:{lifecycle.port}")

    return start


@pytest.fixture
def script() -> Script:
    """A script that answers with empty messages."""
    return Script()
