"""What a service is: its RPCs, its subscriptions, its tasks, what it does when it drains.

Returned by `services.*.bootstrap.build`; run by `runtime.lifecycle`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from servicekit.ports.event_bus import EventBus, Subscription
from servicekit.rpc.caller import SCOPES


@dataclass(frozen=True, slots=True)
class RpcService:
    """One gRPC service of this process.

    `name` is the full name (`binnacle.retriever.v1.RetrieverService`). `add_to_server` takes the server
    (`partial(add_RetrieverServiceServicer_to_server, servicer)`). `scopes` maps each method's short name to the scope
    it needs; a method without one is refused to everyone. `long_lived` names subscriptions, which have no deadline.
    """

    name: str
    add_to_server: Callable[[Any], None]
    scopes: Mapping[str, str] = field(default_factory=dict)
    long_lived: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        unknown = sorted(set(self.scopes.values()) - SCOPES)
        if unknown:
            raise ValueError(f"{self.name}: unknown scopes {', '.join(unknown)}; valid: {', '.join(sorted(SCOPES))}")

    def path_of(self, method: str) -> str:
        """The full method name, as it stands on the wire."""
        return f"/{self.name}/{method}"


@dataclass(frozen=True, slots=True)
class BackgroundTask:
    """Work beside the calls; ends by returning, is cancelled at drain, and takes the service down if it raises."""

    name: str
    run: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class HttpApp:
    """An ASGI application served beside gRPC (the gateway's OpenAI-compatible API)."""

    app: Any
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Service:
    """A service, wired and ready to run. `drain` is awaited after the servers stopped and before the bus closes."""

    name: str
    rpc_services: tuple[RpcService, ...]
    bus: EventBus | None = None
    subscriptions: tuple[Subscription, ...] = ()
    tasks: tuple[BackgroundTask, ...] = ()
    http: HttpApp | None = None
    drain: tuple[Callable[[], Awaitable[None]], ...] = ()
