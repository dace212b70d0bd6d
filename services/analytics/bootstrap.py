"""Wires analytics: the only place that knows which adapters there are."""

import asyncio
import gc
from collections.abc import Sequence
from functools import partial

import structlog

from binnacle.analytics.v1.analytics_service_pb2_grpc import add_AnalyticsServiceServicer_to_server
from servicekit.adapters.clickhouse.analytics_store import ClickHouseAnalyticsStore, open_analytics_store
from servicekit.adapters.kafka.address import parse_address
from servicekit.adapters.kafka.quiet import quieten_aiokafka
from servicekit.adapters.kafka.topic_setup import create_missing_topics
from servicekit.errors import BackendTimeout, BackendUnavailable
from servicekit.events.topics import TOPICS
from servicekit.ports.event_bus import DeadLetterLimits
from servicekit.runtime.service import BackgroundTask, RpcService, Service, Stack
from servicekit.runtime.stack import Dependency
from services.analytics.batching import Limits
from services.analytics.config import Settings
from services.analytics.gap_watch import GapWatch
from services.analytics.migrations import migrate, read_migrations
from services.analytics.rollups import RollupKeeper
from services.analytics.server import SCOPES, SERVICE_NAME, AnalyticsServicer
from services.analytics.sink import Sink
from services.analytics.sink_session import SinkSettings

log = structlog.get_logger()

_RETRY_S = 0.5
# The sink holds a hundred thousand records at a time, none of them in a cycle: looking for cycles among them by
# Python's own thresholds took an eighth of its time.
_GC_THRESHOLDS = (50_000, 20, 100)


async def build(settings: Settings, stack: Stack) -> Service:
    """Analytics, its store opened and brought up to date.

    Raises:
        NotReady: the migrations do not fit the store.
        BackendUnavailable, BackendTimeout: the store stayed away for `migrate_within_s`.
    """
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    store: ClickHouseAnalyticsStore = await stack.enter(
        "analytics_store",
        open_analytics_store(settings.analytics_store_url, timeout_s=settings.store_timeout_s),
        ping=lambda opened: opened.ping(),
    )
    await _migrate(store, settings)
    address = parse_address(settings.event_bus_url)
    quieten_aiokafka()
    sink = Sink(
        store,
        servers=address.servers,
        instance=f"{address.instance}.sink" if address.instance else None,
        create_topics=partial(create_missing_topics, address.servers, dead_letters=_dead_letters()),
        clock=stack.clock,
        settings=SinkSettings(
            limits=Limits(
                max_rows=settings.batch_rows,
                max_bytes=settings.batch_bytes,
                max_age_s=settings.batch_age_s,
            ),
            max_buffered_bytes=settings.max_buffered_bytes,
            dead_letter_limits=DeadLetterLimits(
                max_ratio=settings.dead_letter_max_ratio, max_in_a_row=settings.dead_letter_max_in_a_row
            ),
        ),
    )
    # Questions are answered while the sink stands still, so that the store alone is essential.
    stack.dependencies.append(Dependency("sink", sink.health.ping, essential=False))
    rollups = RollupKeeper(store, every_s=settings.rollup_every_s, insert_within_s=settings.store_timeout_s)
    return Service(
        name="analytics",
        rpc_services=(
            RpcService(
                SERVICE_NAME,
                partial(add_AnalyticsServiceServicer_to_server, AnalyticsServicer(store, stack.clock)),
                scopes=SCOPES,
            ),
        ),
        tasks=(
            BackgroundTask("sink", sink.run),
            BackgroundTask("rollups", rollups.run),
            BackgroundTask("gap_watch", GapWatch(store, clock=stack.clock).run),
        ),
    )


def _dead_letters() -> Sequence[tuple[str, str]]:
    """The topics that the sink may put dead letters of, each with its group."""
    return [(spec.name, SinkSettings().group) for spec in TOPICS.values() if "analytics" in spec.consumers]


async def _migrate(store: ClickHouseAnalyticsStore, settings: Settings) -> None:
    """The store may start later than this service."""
    migrations = read_migrations(settings.migrations_dir)
    async with asyncio.timeout(settings.migrate_within_s):
        while True:
            try:
                await store.create_database()
                await migrate(store, migrations)
            except (BackendUnavailable, BackendTimeout) as error:
                log.warning("migrations.waiting", error=error.message[:300])
                await asyncio.sleep(_RETRY_S)
            else:
                return
