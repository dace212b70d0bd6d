"""Builds a tenant's index of another model beside the one that is searched, and switches. Called by `vector_store.py`.

A chunk has the same identifier in both collections, so what the new one lacks is seen by comparing identifiers.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from weaviate.classes.query import Filter as Weaviate

from servicekit.adapters.vector_checks import check_vector
from servicekit.adapters.weaviate import schema
from servicekit.adapters.weaviate.corpus import Corpus
from servicekit.adapters.weaviate.naming import chunks_collection, place_key
from servicekit.adapters.weaviate.searching import shown_chunks
from servicekit.ports.vector_store import IndexedChunk

_READ = [*schema.CHUNK_PROPERTIES, "search_text"]


async def begin_rebuild(corpus: Corpus, *, model: str, dimension: int) -> None:
    """Have the new index, empty unless it was begun before."""
    async with corpus.to_write() as now:
        if now.building == (model, dimension):
            return
        name = await _collection(corpus, model)
        dropped = dict(now.dropped)
        if now.building is not None and now.building[0] not in (model, now.model):
            dropped[chunks_collection(corpus.server.prefix, now.building[0])] = time.time()
        if now.model and model != now.model:
            await corpus.server.drop_tenant(name, corpus.name)  # what an earlier attempt left
            await corpus.server.ensure_tenant(name, corpus.name)
        else:
            await corpus.server.ensure_tenant(name, corpus.name)
        dropped.pop(name, None)
        if not now.model:  # nothing was ever written: there is nothing to build, the model is pinned
            now = replace(now, model=model, dimension=dimension)  # noqa: PLW2901  # the snapshot that is followed
        await corpus.commit_state(replace(now, version=now.next_version, building=(model, dimension), dropped=dropped))


async def _collection(corpus: Corpus, model: str) -> str:
    properties = [schema.field_property(name, kind) for name, kind in corpus.snapshot.fields.items()]
    return await corpus.server.ensure_chunks(model, properties)


async def chunks_to_rebuild(corpus: Corpus, *, limit: int) -> Sequence[IndexedChunk]:
    """Current chunks that the new index lacks."""
    now = corpus.snapshot
    lacking: list[IndexedChunk] = []
    if now.building is None or now.building[0] == now.model:
        return lacking
    beside = corpus.server.of(chunks_collection(corpus.server.prefix, now.building[0]), corpus.name)
    async for page in corpus.server.every(corpus.chunks, properties=_READ):
        current = shown_chunks(page, now).values()
        held = {one.uuid for one in await corpus.server.get(beside, [one.uuid for one, _ in current], properties=[])}
        lacking += [
            IndexedChunk(chunk, (), str(one.properties["search_text"]))
            for one, chunk in current
            if one.uuid not in held
        ]
        if len(lacking) >= limit:
            break
    return lacking[:limit]


async def write_rebuilt(corpus: Corpus, chunks: Sequence[IndexedChunk]) -> None:
    """Put chunks with their new vectors beside; those that are no longer current are left out."""
    async with corpus.writing:
        now = corpus.snapshot
        if now.building is None or now.building[0] == now.model:
            return
        for one in chunks:
            check_vector(one.vector, dimension=now.building[1])
        current = await _current(corpus, chunks)
        name = await _collection(corpus, now.building[0])
        objects = [
            schema.chunk_object(one, born=born) for one in chunks if (born := current.get(_key(one))) is not None
        ]
        await corpus.server.insert(corpus.server.of(name, corpus.name), objects)


def _key(one: IndexedChunk) -> tuple[str, str]:
    return one.chunk.chunk_id, one.search_text


async def _current(corpus: Corpus, chunks: Sequence[IndexedChunk]) -> dict[tuple[str, str], int]:
    """What each current chunk among them was born for."""
    current = {}
    for start in range(0, len(chunks), 200):
        keys = [place_key(one.chunk.document_id, one.chunk.ordinal) for one in chunks[start : start + 200]]
        where = Weaviate.by_property("place").contains_any(keys)
        objects = await corpus.server.find(corpus.chunks, where, properties=_READ)
        for one, chunk in shown_chunks(objects, corpus.snapshot).values():
            current[chunk.chunk_id, str(one.properties["search_text"])] = int(one.properties["born"])
    return current


async def finish_rebuild(corpus: Corpus) -> bool:
    """Switch, unless chunks are lacking; the old index goes after the searches that are in it."""
    async with corpus.to_write() as now:
        if now.building is None:
            return False
        model, dimension = now.building
        follower = replace(now, version=now.next_version, model=model, dimension=dimension, building=None)
        if model != now.model:
            if await chunks_to_rebuild(corpus, limit=1):
                return False
            await _take_leftovers(corpus, model)
            old = chunks_collection(corpus.server.prefix, now.model)
            follower = replace(follower, dropped={**now.dropped, old: time.time()})
        await corpus.commit_state(follower)
        return True


async def _take_leftovers(corpus: Corpus, model: str) -> None:
    """Chunks that were written beside and are gone since."""
    beside = corpus.server.of(chunks_collection(corpus.server.prefix, model), corpus.name)
    async for page in corpus.server.every(beside, properties=schema.CHUNK_PROPERTIES):
        current = {one.uuid for one, _ in shown_chunks(page, corpus.snapshot).values()}
        gone: list[Any] = [one.uuid for one in page if one.uuid not in current]
        if gone:
            await corpus.server.delete(beside, Weaviate.by_id().contains_any(gone))
