"""Opens a pool together with the task that keeps its picture of the replicas fresh.

Used by the generator's bootstrap.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.generator.pool.replica_pool import ReplicaPool


@asynccontextmanager
async def running(pool: ReplicaPool) -> AsyncIterator[ReplicaPool]:
    """The pool, polled until the context ends; no replica is waited for."""
    async with asyncio.TaskGroup() as group:
        polling = group.create_task(pool.run())
        try:
            yield pool
        finally:
            polling.cancel()
