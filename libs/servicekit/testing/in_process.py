"""Runs a whole service inside a test: real gRPC on a free port, real authentication, no process.

Used by unit and integration tests of services; the wiring under test is the service's own `build`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from servicekit.ports.clock import Clock
from servicekit.rpc.auth import Caller, acting_as
from servicekit.rpc.client import open_channel
from servicekit.rpc.keyfiles import ensure_token_keys, load_private_key
from servicekit.rpc.tokens import TokenMinter
from servicekit.runtime.lifecycle import Build, Lifecycle
from servicekit.runtime.settings import SettingsT

READY_S = 10.0


@dataclass(frozen=True, slots=True)
class Trust:
    """A key pair in a test's folder: what settings point to, and a minter that signs with it."""

    private_key_file: Path
    public_key_file: Path

    @classmethod
    def create(cls, folder: Path) -> "Trust":
        """Make the pair of files."""
        trust = cls(folder / "token-private.pem", folder / "token-public.pem")
        ensure_token_keys(trust.private_key_file, trust.public_key_file)
        return trust

    def minter(self, *, clock: Clock | None = None) -> TokenMinter:
        """Signs with the private key."""
        return TokenMinter(load_private_key(self.private_key_file), clock=clock)


@asynccontextmanager
async def running_service(
    settings: SettingsT, build: Build[SettingsT], *, clock: Clock | None = None, wait_ready: bool = True
) -> AsyncIterator[Lifecycle[SettingsT]]:
    """The service, up (`.port`, `.metrics_port`, `.stack`) and, unless told otherwise, SERVING; taken down on exit."""
    failure: BaseException | None = None
    lifecycle = Lifecycle(settings, build, clock=clock)
    async with asyncio.TaskGroup() as tasks:
        try:
            await lifecycle.up(tasks)
            if wait_ready and lifecycle.readiness is not None:
                async with asyncio.timeout(READY_S):
                    await lifecycle.readiness.first_ready.wait()
            yield lifecycle
        except BaseException as exc:  # noqa: BLE001  # raised again below: a task group would wrap it
            failure = exc
        finally:
            await lifecycle.down()
    if failure is not None:
        raise failure


def channel_to(
    lifecycle: Lifecycle[Any], trust: Trust, **options: Any
) -> AbstractAsyncContextManager[grpc.aio.Channel]:
    """A channel to the running service that signs for the current caller (see `caller`)."""
    return open_channel(
        f"127.0.0.1:{lifecycle.port}",
        audience=lifecycle.settings.service_name(),
        minter=trust.minter(),
        **options,
    )


def caller(
    *, tenant: str = "acme", subject: str = "tester", scopes: Iterable[str] = ("*",)
) -> AbstractContextManager[Caller]:
    """A block whose outgoing calls are made for this tenant; every scope unless told otherwise."""
    return acting_as(Caller(tenant=tenant, subject=subject, scopes=frozenset(scopes)))
