"""Wires the drift monitor: the only place that knows which adapters there are."""

from functools import partial

from binnacle.drift_monitor.v1.drift_monitor_service_pb2_grpc import add_DriftMonitorServiceServicer_to_server
from servicekit.adapters.registry import open_analytics_store, open_event_bus
from servicekit.errors import InvalidRequest
from servicekit.ports.event_bus import EventBus
from servicekit.runtime.service import BackgroundTask, RpcService, Service, Stack
from services.drift_monitor.config import Settings
from services.drift_monitor.events import DriftMonitorEvents
from services.drift_monitor.laboratory import open_laboratory
from services.drift_monitor.server import LONG_LIVED, SCOPES, SERVICE_NAME, DriftMonitorServicer
from services.drift_monitor.watching import Watch


async def build(settings: Settings, stack: Stack) -> Service:
    """The drift monitor, its bus, store and laboratory opened; Evidently is imported after the port is open.

    Raises:
        InvalidRequest: the window sizes contradict each other.
    """
    try:
        _ = settings.sizes
    except ValueError as exc:
        raise InvalidRequest(f"windows cannot be cut like this: {exc}", field="min_size") from exc
    store = await stack.enter(
        "analytics_store",
        open_analytics_store(settings.analytics_store_url),
        ping=lambda opened: opened.ping(),
        essential=False,
    )
    bus: EventBus = await stack.enter(
        "event_bus",
        open_event_bus(settings.event_bus_url, identity=stack.identity, clock=stack.clock),
        ping=lambda opened: opened.ping(),
    )
    laboratory = await stack.enter(
        "laboratory",
        open_laboratory(timeout_s=settings.laboratory_timeout_s, max_report_bytes=settings.max_report_bytes),
    )
    watch = Watch(settings, publisher=bus, store=store, laboratory=laboratory, clock=stack.clock)
    servicer = DriftMonitorServicer(
        watch.monitor,
        feed=watch.feed,
        publisher=watch.publisher,
        restorer=watch.restorer,
        clock=stack.clock,
    )
    return Service(
        name="drift_monitor",
        rpc_services=(
            RpcService(
                SERVICE_NAME,
                partial(add_DriftMonitorServiceServicer_to_server, servicer),
                scopes=SCOPES,
                long_lived=LONG_LIVED,
            ),
        ),
        bus=bus,
        subscriptions=DriftMonitorEvents(watch.monitor).subscriptions(),
        tasks=(
            BackgroundTask("warm_laboratory", laboratory.warm_up),
            BackgroundTask("restore_windows", watch.restore),
            BackgroundTask("judge_windows", watch.judge),
            BackgroundTask("publish_alerts", watch.publisher.run),
        ),
        drain=(watch.publisher.drain,),
    )
