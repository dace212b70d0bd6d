"""One connection to a Weaviate: its collections, and the few ways in which this package reads and writes them.

Used by `corpus.py` and `rebuilding.py`; knows nothing of documents and versions. Every call is bounded in time.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from weaviate import WeaviateAsyncClient
from weaviate.classes.config import Property
from weaviate.classes.data import DataObject
from weaviate.classes.query import Sort
from weaviate.classes.tenants import Tenant
from weaviate.collections.classes.filters import _Filters as WeaviateFilter

from servicekit.adapters.weaviate import schema
from servicekit.adapters.weaviate.faults import bounded
from servicekit.adapters.weaviate.naming import chunks_collection
from servicekit.errors import BackendUnavailable

# Small, so that searches get their turn between them; writes of more than a few objects take turns among themselves.
BATCH_OBJECTS = 100
_FEW_OBJECTS = 25
PAGE_OBJECTS = 500
_MOST_OBJECTS = 10_000  # Weaviate's own limit of one answer


class WeaviateServer:
    """The collections of one prefix."""

    def __init__(self, client: WeaviateAsyncClient, *, prefix: str, read_s: float, write_s: float) -> None:
        self.client = client
        self.prefix = prefix
        self.archive, self.documents, self.states = (f"{prefix}{name}" for name in ("Archive", "Documents", "States"))
        self.read_s = read_s
        self.write_s = write_s
        self._known: dict[str, set[str]] = {}  # properties by collection
        self._tenants: set[tuple[str, str]] = set()
        self._handles: dict[tuple[str, str], Any] = {}
        self._changing = asyncio.Lock()
        self._bulk = asyncio.Lock()

    async def prepare(self) -> None:
        """Make the collections that do not depend on a model, unless they are there."""
        for name, config in (
            (self.archive, schema.ARCHIVE),
            (self.documents, schema.DOCUMENTS),
            (self.states, schema.STATES),
        ):
            await self._ensure_collection(name, config)

    async def ensure_chunks(self, model: str, properties: Sequence[Property]) -> str:
        """The collection of a model, with these properties; its name."""
        name = chunks_collection(self.prefix, model)
        await self._ensure_collection(name, schema.CHUNKS)
        if any(one.name not in self._known[name] for one in properties):
            async with self._changing:
                for one in properties:
                    if one.name not in self._known[name]:
                        async with bounded(self.write_s):
                            await self.client.collections.use(name).config.add_property(one)
                        self._known[name].add(one.name)
        return name

    async def _ensure_collection(self, name: str, config: Mapping[str, Any]) -> None:
        if name in self._known:
            return
        async with self._changing, bounded(self.write_s):
            if not await self.client.collections.exists(name):
                await self.client.collections.create(name, **config)
            held = await self.client.collections.use(name).config.get()
            self._known[name] = {one.name for one in held.properties}

    async def ensure_tenant(self, collection: str, tenant: str) -> None:
        """Make a tenant of a collection, unless it is there."""
        if (collection, tenant) not in self._tenants:
            async with bounded(self.write_s):
                await self.client.collections.use(collection).tenants.create([Tenant(name=tenant)])
            self._tenants.add((collection, tenant))

    async def drop_tenant(self, collection: str, tenant: str) -> None:
        """Take a tenant of a collection away with all that it holds."""
        self._tenants.discard((collection, tenant))
        async with bounded(self.write_s):
            await self.client.collections.use(collection).tenants.remove([tenant])

    def of(self, collection: str, tenant: str) -> Any:
        """A tenant's objects in a collection; making the client's object for it takes longer than a small search."""
        key = (collection, tenant)
        if key not in self._handles:
            self._handles[key] = self.client.collections.use(collection).with_tenant(tenant)
        return self._handles[key]

    async def insert(self, target: Any, objects: Sequence[DataObject[Any, Any]]) -> None:
        """Put objects in, over those with the same identifiers; of bulk writes, one batch at a time.

        Raises:
            BackendUnavailable: some are not in; the others may be.
        """
        if len(objects) <= _FEW_OBJECTS:
            await self._insert_batch(target, objects)
            return
        for start in range(0, len(objects), BATCH_OBJECTS):
            async with self._bulk:
                await self._insert_batch(target, objects[start : start + BATCH_OBJECTS])

    async def _insert_batch(self, target: Any, objects: Sequence[DataObject[Any, Any]]) -> None:
        if not objects:
            return
        async with bounded(self.write_s):
            reply = await target.data.insert_many(objects)
        if reply.has_errors:
            first = next(iter(reply.errors.values())).message
            raise BackendUnavailable(
                f"the vector store took {len(objects) - len(reply.errors)} of {len(objects)} objects: {first}",
                reason="VECTOR_STORE_FAILED",
            )

    async def delete(self, target: Any, where: WeaviateFilter) -> int:
        """Take away what matches; how many there were."""
        count: int = 0
        while True:
            async with bounded(self.write_s):
                reply = await target.data.delete_many(where=where)
            count += int(reply.successful)
            if reply.matches <= reply.successful or not reply.successful:
                return count

    async def find(
        self,
        target: Any,
        where: WeaviateFilter,
        *,
        properties: Sequence[str],
        limit: int = _MOST_OBJECTS,
        sort: Any = None,
        vectors: bool = False,
    ) -> list[Any]:
        """Objects that match."""
        async with bounded(self.read_s):
            reply = await target.query.fetch_objects(
                filters=where, limit=limit, sort=sort, return_properties=list(properties), include_vector=vectors
            )
        return list(reply.objects)

    async def get(self, target: Any, ids: Sequence[UUID], *, properties: Sequence[str]) -> list[Any]:
        """Objects by their identifiers."""
        found: list[Any] = []
        for start in range(0, len(ids), PAGE_OBJECTS):
            page = ids[start : start + PAGE_OBJECTS]
            async with bounded(self.read_s):
                reply = await target.query.fetch_objects_by_ids(
                    page, limit=len(page), return_properties=list(properties)
                )
            found += reply.objects
        return found

    async def every(self, target: Any, *, properties: Sequence[str]) -> AsyncIterator[list[Any]]:
        """All objects, in pages."""
        after = None
        while True:
            async with bounded(self.read_s):
                reply = await target.query.fetch_objects(
                    limit=PAGE_OBJECTS, after=after, return_properties=list(properties)
                )
            if reply.objects:
                yield list(reply.objects)
            if len(reply.objects) < PAGE_OBJECTS:
                return
            after = reply.objects[-1].uuid


def ascending(name: str) -> Any:
    """Sorted by a property."""
    return Sort.by_property(name, ascending=True)


def descending(name: str) -> Any:
    """Sorted by a property, the largest first."""
    return Sort.by_property(name, ascending=False)
