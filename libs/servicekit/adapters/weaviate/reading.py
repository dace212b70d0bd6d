"""Reads of a tenant's corpus other than searches: chunks by hash and by place, records in order.

Called by `vector_store.py`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from weaviate.classes.query import Filter as Weaviate

from servicekit.adapters.weaviate import schema
from servicekit.adapters.weaviate.corpus import Corpus
from servicekit.adapters.weaviate.naming import order_key, place_key
from servicekit.adapters.weaviate.searching import shown_chunks
from servicekit.adapters.weaviate.server import ascending, descending
from servicekit.domain.chunk import Chunk
from servicekit.ports.vector_store import ChunkPlace, StoredChunk, StoredDocument

_TERMS_A_CALL = 200
_MOST_OF_CALL = 10_000
_ARCHIVED = ["content_hash", "born", "body", "erase_time"]


async def get_places(corpus: Corpus, places: Sequence[ChunkPlace]) -> Mapping[ChunkPlace, Chunk]:
    """Current chunks by place."""
    now = corpus.snapshot
    wanted = list(dict.fromkeys(places))
    found: dict[ChunkPlace, Chunk] = {}
    for start in range(0, len(wanted), _TERMS_A_CALL):
        keys = [place_key(one.document_id, one.ordinal) for one in wanted[start : start + _TERMS_A_CALL]]
        where = Weaviate.by_property("place").contains_any(keys)
        objects = await corpus.server.find(corpus.chunks, where, properties=schema.CHUNK_PROPERTIES)
        for _, chunk in shown_chunks(objects, now).values():
            found[ChunkPlace(chunk.document_id, chunk.ordinal)] = chunk
    return {place: found[place] for place in wanted if place in found}


async def get_chunks(corpus: Corpus, content_hashes: Sequence[str]) -> Mapping[str, StoredChunk]:
    """Chunks by content hash, the newest that holds it; where none does any more, the time of its erasure."""
    wanted = list(dict.fromkeys(content_hashes))
    found: dict[str, StoredChunk] = {}
    for start in range(0, len(wanted), _TERMS_A_CALL):
        some = wanted[start : start + _TERMS_A_CALL]
        objects = await _archived(corpus, some)
        if len(objects) == _MOST_OF_CALL:  # texts that very many chunks share crowd out the others
            objects = [one for each in some for one in await _archived(corpus, [each])]
        for one in sorted(objects, key=_age):
            found[one.properties["content_hash"]] = _stored(corpus, one.properties)
    return found


async def _archived(corpus: Corpus, hashes: Sequence[str]) -> list[Any]:
    where = Weaviate.by_property("content_hash").contains_any(list(hashes))
    sort = descending("born") if len(hashes) == 1 else None
    limit = _TERMS_A_CALL if len(hashes) == 1 else _MOST_OF_CALL
    return await corpus.server.find(corpus.archive, where, properties=_ARCHIVED, limit=limit, sort=sort)


def _age(one: Any) -> int:
    return int(one.properties["born"])


def _stored(corpus: Corpus, held: Mapping[str, Any]) -> StoredChunk:
    if not held["body"]:
        return StoredChunk(None, datetime.fromisoformat(held["erase_time"]))
    chunk = schema.to_chunk(held["body"])
    erased = corpus.snapshot.journal.get(chunk.document_id, {}).get("delete_time")
    return StoredChunk(None, datetime.fromisoformat(erased)) if erased else StoredChunk(chunk)


async def list_documents(
    corpus: Corpus, *, page_size: int, after: str, include_retracted: bool
) -> Sequence[StoredDocument]:
    """Records that are not deleted, in the order of their ids."""
    journal = corpus.snapshot.journal
    # Named one by one: of a range, Weaviate 1.39 reads only as many as the limit says before it sorts them.
    standings = [schema.CURRENT, schema.RETRACTED] if include_retracted else [schema.CURRENT]
    where = Weaviate.by_property("standing").contains_any(standings)
    if after:
        where = where & Weaviate.by_property("place").greater_than(order_key(after))
    objects = await corpus.server.find(
        corpus.documents, where, properties=["body"], limit=page_size + len(journal), sort=ascending("place")
    )
    records: dict[str, Mapping[str, Any]] = {record["document_id"]: record for record in map(schema.record_of, objects)}
    records.update({one: record for one, record in journal.items() if one > after})
    listed = [
        record
        for record in records.values()
        if not record["delete_time"] and (include_retracted or not record["retract_time"])
    ]
    listed.sort(key=lambda record: str(record["document_id"]))
    return [schema.to_document(record) for record in listed[:page_size]]
