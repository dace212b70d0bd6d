"""One tenant's corpus: its snapshot, and the commits that follow each other. Made by `vector_store.py`.

One process writes a tenant at a time; within it commits follow each other under a lock. Other processes see a commit
within half a second.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import structlog
from weaviate.classes.data import DataObject
from weaviate.classes.query import Filter as Weaviate

from servicekit.adapters.vector_checks import already_retracted, check_model, check_vector, no_document
from servicekit.adapters.weaviate import schema
from servicekit.adapters.weaviate.naming import chunks_collection, object_id, property_name, tenant_name, text_key
from servicekit.adapters.weaviate.server import WeaviateServer, descending
from servicekit.adapters.weaviate.state import CorpusSnapshot, Death
from servicekit.domain.filter import FieldKind
from servicekit.domain.metadata import merge_fields
from servicekit.errors import BackendUnavailable
from servicekit.ports.vector_store import DocumentRevision

# How long dead chunks stay, for searches that began before they died; longer than any search may take.
GRACE_S = 10.0
_FRESH_S = 0.5
_ABORTED_KEPT = 20
_DOCUMENT_KEY = property_name("_document_id", FieldKind.TEXT)

log = structlog.get_logger(__name__)


class Corpus:
    """Reads go to the snapshot; a commit ends with a new one."""

    def __init__(self, server: WeaviateServer, tenant: str) -> None:
        self.server = server
        self.name = tenant_name(tenant)
        self.snapshot = CorpusSnapshot(tenant)
        self.unsettled = False  # chunks may be there that no snapshot shows
        self._writes_here = False
        self._loaded_s = float("-inf")
        self.writing = asyncio.Lock()

    @property
    def chunks(self) -> Any:
        """The chunks of the index that is searched."""
        return self.server.of(chunks_collection(self.server.prefix, self.snapshot.model), self.name)

    @property
    def archive(self) -> Any:
        """Every chunk ever current, and what erasure left."""
        return self.server.of(self.server.archive, self.name)

    @property
    def documents(self) -> Any:
        """The records of documents that are not in the journal."""
        return self.server.of(self.server.documents, self.name)

    async def refresh(self) -> CorpusSnapshot:
        """The newest snapshot: this process's own, if it writes here, else half a second old at most."""
        if not self._writes_here and time.monotonic() - self._loaded_s > _FRESH_S:
            loaded_s = time.monotonic()
            self.snapshot = await self._load()
            self._loaded_s = loaded_s
        return self.snapshot

    async def _load(self) -> CorpusSnapshot:
        states = self.server.client.collections.use(self.server.states)
        mine = Weaviate.by_property("tenant").equal(self.name)
        newest = await self.server.find(states, mine, properties=["body"], limit=1, sort=descending("version"))
        if not newest:
            return CorpusSnapshot(self.snapshot.tenant)
        return CorpusSnapshot.from_json(newest[0].properties["body"])

    async def replace(self, revisions: Sequence[DocumentRevision], *, model: str) -> int:
        """Make these the current revisions."""
        async with self.to_write() as now:
            if now.model:
                check_model(model, held=now.model)
            fields = merge_fields(now.fields, [revision.document.metadata for revision in revisions])
            new = [one for revision in revisions for one in revision.chunks]
            dimension = now.dimension or (len(new[0].vector) if new else 0)
            for one in new:
                check_vector(one.vector, dimension=dimension)
            old = await self.records([revision.document.document_id for revision in revisions])
            properties = [schema.field_property(name, kind) for name, kind in fields.items()]
            collection = await self.server.ensure_chunks(model, properties)
            await self._ensure_tenants(collection)
            if not now.model:  # what a first write that was killed has left
                await self.server.delete(
                    self.server.of(collection, self.name), Weaviate.by_property("born").greater_than(0)
                )
            version = now.next_version
            self.unsettled = True
            await self.server.insert(
                self.server.of(collection, self.name), [schema.chunk_object(one, born=version) for one in new]
            )
            await self.server.insert(self.archive, [schema.archive_object(one.chunk, born=version) for one in new])
            records = [schema.to_record(one.document, held_chunks=len(one.chunks)) for one in revisions]
            follower = replace(now, version=version, model=model, dimension=dimension, fields=fields)
            await self._commit(_with_records(follower, records, old))
            return version

    async def retract(self, document_id: str, *, retract_time: str) -> int:
        """Hide a document."""
        async with self.to_write() as now:
            old = await self._existing(document_id)
            if old["retract_time"]:
                raise already_retracted(document_id)
            record = {**old, "retract_time": retract_time, "held_chunks": 0}
            follower = replace(now, version=now.next_version)
            await self._commit(_with_records(follower, [record], {document_id: old}))
            return follower.version

    async def delete(self, document_id: str, *, erase_time: str) -> int:
        """Erase a document. Its chunks are gone after the grace, its texts when this returns."""
        async with self.to_write() as now:
            old = await self._existing(document_id)
            gone = {"title": "", "source_uri": "", "metadata": {}, "chunk_count": 0, "held_chunks": 0}
            record = {**old, **gone, "delete_time": erase_time}
            follower = replace(now, version=now.next_version)
            await self._commit(_with_records(follower, [record], {document_id: old}))
        if document_id in self.snapshot.journal:
            raise BackendUnavailable(
                f"document {document_id!r} is deleted, its texts are not erased yet: this goes on by itself",
                reason="ERASURE_PENDING",
            )
        return follower.version

    async def _existing(self, document_id: str) -> Mapping[str, Any]:
        record = (await self.records([document_id])).get(document_id)
        if record is None or record["delete_time"]:
            raise no_document(document_id)
        return record

    async def records(self, document_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Documents' records by id; those of the journal are newer than those of the collection."""
        now = self.snapshot
        if not now.version:
            return {}
        wanted = [object_id("document", one) for one in dict.fromkeys(document_ids) if one not in now.journal]
        held = [schema.record_of(one) for one in await self.server.get(self.documents, wanted, properties=["body"])]
        found = {record["document_id"]: record for record in held}
        return found | {one: now.journal[one] for one in document_ids if one in now.journal}

    @asynccontextmanager
    async def to_write(self) -> AsyncIterator[CorpusSnapshot]:
        """The lock, and a snapshot to begin from, with nothing of a failed commit left over."""
        async with self.writing:
            if self.unsettled or not self._writes_here or self.snapshot.journal:
                await self._settle()
            yield self.snapshot

    async def _settle(self) -> None:
        """Begin anew from the newest state: what no commit made visible goes, what the journal says is done.

        Some of a failed commit may still be on its way to the server: its version never comes to be, and a state
        above it is written at once, so that its own state, should it arrive, is never the newest.
        """
        now = await self._load()
        await self._ensure_tenants(chunks_collection(self.server.prefix, now.model) if now.model else "")
        left = await self._take_uncommitted(now)
        if left or self.unsettled:
            now = replace(now, aborted=(*now.aborted, now.next_version)[-_ABORTED_KEPT:])
            await self.commit_state(replace(now, version=now.next_version))
        else:
            self.snapshot = now
        self._writes_here = True
        await self._flush()

    async def _take_uncommitted(self, now: CorpusSnapshot) -> int:
        if not now.model:
            return 0
        born = Weaviate.by_property("born")
        doubtful = Weaviate.any_of([born.greater_than(now.version), *(born.equal(one) for one in now.aborted)])
        return await self.server.delete(
            self.server.of(chunks_collection(self.server.prefix, now.model), self.name), doubtful
        )

    async def _ensure_tenants(self, collection: str) -> None:
        for one in filter(None, (collection, self.server.archive, self.server.documents)):
            await self.server.ensure_tenant(one, self.name)

    async def commit_state(self, follower: CorpusSnapshot) -> None:
        """Write a snapshot: the instant from which on every search sees it."""
        self.unsettled = True
        properties = {"tenant": self.name, "version": follower.version, "body": follower.to_json()}
        state = DataObject(properties=properties, uuid=object_id("state", self.name, follower.version))
        await self.server.insert(self.server.client.collections.use(self.server.states), [state])
        self.snapshot, self.unsettled = follower, False

    async def _commit(self, follower: CorpusSnapshot) -> None:
        await self.commit_state(follower)
        try:
            await self._flush()
        except BackendUnavailable as exc:  # the journal keeps it; the next write or the upkeep does it again
            log.warning("vector_store.flush_failed", reason=exc.reason)

    async def _flush(self) -> None:
        """Put the journal's records where they belong, and erase what is deleted."""
        journal = self.snapshot.journal
        if not journal:
            return
        for record in journal.values():
            if record["delete_time"]:
                await self._erase(record["document_id"], erase_time=record["delete_time"])
        await self.server.insert(self.documents, [schema.document_object(record) for record in journal.values()])
        self.snapshot = replace(self.snapshot, journal={})

    async def _erase(self, document_id: str, *, erase_time: str) -> None:
        mine = Weaviate.by_property(_DOCUMENT_KEY).equal(text_key(document_id))
        while held := await self.server.find(self.archive, mine, properties=["content_hash"], limit=1000):
            hashes = dict.fromkeys(one.properties["content_hash"] for one in held)
            await self.server.insert(self.archive, [schema.erased_object(one, erase_time) for one in hashes])
            await self.server.delete(self.archive, Weaviate.by_id().contains_any([one.uuid for one in held]))

    async def take_dead(self) -> None:
        """Take away what has been dead for longer than any search lasts."""
        if not self._writes_here or self.writing.locked():
            return
        now = self.snapshot
        over_s = time.time() - GRACE_S
        if self.unsettled or now.journal or any(death.since_s < over_s for death in now.dead.values()) or now.dropped:
            async with self.writing:
                await self._take_dead(over_s)

    async def _take_dead(self, over_s: float) -> None:
        if self.unsettled or self.snapshot.journal:
            await self._settle()
        now = self.snapshot
        over = {document_id: death for document_id, death in now.dead.items() if death.since_s < over_s}
        models = [now.model, *(now.building[:1] if now.building else ())]
        for document_id, death in over.items():
            document = Weaviate.by_property(_DOCUMENT_KEY).equal(text_key(document_id))
            older = Weaviate.all_of([document, Weaviate.by_property("born").less_than(death.cutoff)])
            for model in models:
                await self.server.delete(self.server.of(chunks_collection(self.server.prefix, model), self.name), older)
        for collection, since_s in now.dropped.items():
            if since_s < over_s:
                await self.server.drop_tenant(collection, self.name)
        self.snapshot = replace(
            now,
            dead={one: death for one, death in now.dead.items() if one not in over},
            dropped={one: since_s for one, since_s in now.dropped.items() if since_s >= over_s},
        )
        await self._forget_states()

    async def _forget_states(self) -> None:
        mine = Weaviate.by_property("tenant").equal(self.name)
        older = Weaviate.by_property("version").less_than(self.snapshot.version)
        states = self.server.client.collections.use(self.server.states)
        await self.server.delete(states, Weaviate.all_of([mine, older]))


def _with_records(
    follower: CorpusSnapshot, records: Sequence[Mapping[str, Any]], old: Mapping[str, Mapping[str, Any]]
) -> CorpusSnapshot:
    """With these records in the journal, the chunks of the old ones dead, and the counts right."""
    journal, dead = dict(follower.journal), dict(follower.dead)
    documents, chunks = follower.documents, follower.chunks
    for record in records:
        document_id = record["document_id"]
        before = old.get(document_id)
        documents += _counts(record) - _counts(before)
        chunks += record["held_chunks"] - (before["held_chunks"] if before else 0)
        journal[document_id] = record
        if before is not None:
            dead[document_id] = Death(follower.version, time.time())
    return replace(follower, journal=journal, dead=dead, documents=documents, chunks=chunks)


def _counts(record: Mapping[str, Any] | None) -> int:
    return int(record is not None and not record["retract_time"] and not record["delete_time"])
