"""The collections in Weaviate, and objects to and from domain types. Used by all of this package that reads or writes.

Four kinds of collections, each beginning with the prefix of the store's address:
`Chunks<model>` (one a model: vectors, words and filterable properties of current chunks), `Archive` (every chunk ever
current, without vectors), `Documents` (the records), all with one Weaviate tenant a tenant; and `States` (one object
a commit: see `state.py`). `body` is the JSON that a reader gets back; the other properties are there to be searched.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from weaviate.classes.config import (
    Configure,
    DataType,
    Property,
    StopwordsPreset,
    Tokenization,
    VectorDistances,
)
from weaviate.classes.data import DataObject

from servicekit.adapters.weaviate.naming import object_id, order_key, place_key, property_name, text_key
from servicekit.adapters.weaviate.predicate import stored_value
from servicekit.domain.chunk import Chunk
from servicekit.domain.filter import FieldKind, kind_of
from servicekit.domain.metadata import filter_fields
from servicekit.domain.sentences import content_terms
from servicekit.ports.vector_store import IndexedChunk, StoredDocument

# Recall@10 .9975 at 100,000 chunks; fixed when a collection is made, and a higher `ef` alone does not reach it.
EF_CONSTRUCTION = 256
# Recall@10 .984 to .993 with 256 (a build each); Weaviate's own goes by the limit: 100 for ten (.973), 500 for hybrids.
EF = 384
_KIND_TYPES = {FieldKind.TEXT: DataType.TEXT, FieldKind.NUMBER: DataType.NUMBER, FieldKind.BOOLEAN: DataType.BOOL}
CHUNK_PROPERTIES = ["body", "born"]
# What full-text searches look in.
WORDS = "words"
CURRENT, RETRACTED, DELETED = 0, 1, 2


def term(name: str) -> Property:
    """A text that is compared as a whole."""
    return Property(name=name, data_type=DataType.TEXT, tokenization=Tokenization.FIELD, index_searchable=False)


def _number(name: str) -> Property:
    return Property(name=name, data_type=DataType.INT)


def _kept(name: str) -> Property:
    return Property(name=name, data_type=DataType.TEXT, index_filterable=False, index_searchable=False)


def field_property(field: str, kind: FieldKind) -> Property:
    """The property of a metadata field."""
    name = property_name(field, kind)
    return term(name) if kind is FieldKind.TEXT else Property(name=name, data_type=_KIND_TYPES[kind])


_DOCUMENT_KEY = property_name("_document_id", FieldKind.TEXT)
CHUNKS: Mapping[str, Any] = {
    "vector_config": Configure.Vectors.self_provided(
        vector_index_config=Configure.VectorIndex.hnsw(
            ef=EF, ef_construction=EF_CONSTRUCTION, distance_metric=VectorDistances.COSINE
        )
    ),
    "inverted_index_config": Configure.inverted_index(bm25_k1=1.2, bm25_b=0.75, stopwords_preset=StopwordsPreset.NONE),
    "multi_tenancy_config": Configure.multi_tenancy(enabled=True),
    "properties": [
        Property(name=WORDS, data_type=DataType.TEXT, tokenization=Tokenization.WHITESPACE, index_filterable=False),
        _kept("search_text"),
        _kept("body"),
        _number("born"),
        term("place"),
        *(field_property(name, FieldKind.TEXT) for name in ("_document_id", "_title", "_source_uri")),
    ],
}
ARCHIVE: Mapping[str, Any] = {
    "vector_config": Configure.Vectors.self_provided(vector_index_config=Configure.VectorIndex.none()),
    "multi_tenancy_config": Configure.multi_tenancy(enabled=True),
    "properties": [term("content_hash"), term(_DOCUMENT_KEY), _number("born"), _kept("body"), _kept("erase_time")],
}
DOCUMENTS: Mapping[str, Any] = {
    "vector_config": Configure.Vectors.self_provided(vector_index_config=Configure.VectorIndex.none()),
    "multi_tenancy_config": Configure.multi_tenancy(enabled=True),
    "properties": [term("place"), _number("standing"), _kept("body")],
}
STATES: Mapping[str, Any] = {
    "vector_config": Configure.Vectors.self_provided(vector_index_config=Configure.VectorIndex.none()),
    "properties": [term("tenant"), _number("version"), _kept("body")],
}


def words_of(text: str) -> str:
    """What is searched of a text, or for a query: its stems without stop words, since Weaviate itself does not stem.

    nDCG@10 of the hybrid on MTRAG's contexts: .878 with whole words, .895 with stems (`tests.bench.retrieval_quality`).
    """
    return " ".join(content_terms(text))


def chunk_object(indexed: IndexedChunk, *, born: int) -> DataObject[Any, Any]:
    """A chunk that the commit of version `born` makes visible."""
    chunk = indexed.chunk
    fields = {property_name(name, kind_of(value)): stored_value(value) for name, value in filter_fields(chunk).items()}
    properties = {
        WORDS: words_of(indexed.search_text),
        "search_text": indexed.search_text,
        "body": chunk_body(chunk),
        "born": born,
        "place": place_key(chunk.document_id, chunk.ordinal),
        **fields,
    }
    return DataObject(properties=properties, uuid=object_id("chunk", chunk.chunk_id, born), vector=list(indexed.vector))


def archive_object(chunk: Chunk, *, born: int) -> DataObject[Any, Any]:
    """A chunk as its hash keeps it."""
    properties = {
        "content_hash": chunk.content_hash,
        _DOCUMENT_KEY: text_key(chunk.document_id),
        "born": born,
        "body": chunk_body(chunk),
    }
    return DataObject(properties=properties, uuid=object_id("archive", chunk.chunk_id))


def erased_object(content_hash: str, erase_time: str) -> DataObject[Any, Any]:
    """What erasure leaves of a hash."""
    properties = {"content_hash": content_hash, "born": 0, "erase_time": erase_time}
    return DataObject(properties=properties, uuid=object_id("erased", content_hash))


def document_object(record: Mapping[str, Any]) -> DataObject[Any, Any]:
    """A document's record."""
    document_id = record["document_id"]
    standing = DELETED if record["delete_time"] else RETRACTED if record["retract_time"] else CURRENT
    properties = {"place": order_key(document_id), "standing": standing, "body": json.dumps(record)}
    return DataObject(properties=properties, uuid=object_id("document", document_id))


def chunk_body(chunk: Chunk) -> str:
    """A chunk as JSON."""
    return json.dumps(asdict(chunk) | {"metadata": dict(chunk.metadata)}, ensure_ascii=False)


def to_chunk(body: str) -> Chunk:
    """A chunk as it was."""
    values = json.loads(body)
    values["heading_path"] = tuple(values["heading_path"])
    return Chunk(**values)


def to_record(document: StoredDocument, *, held_chunks: int) -> dict[str, Any]:
    """A document as JSON keeps it; `held_chunks` are those that can be found."""
    values = asdict(replace(document, metadata=dict(document.metadata)))
    times = {name: values[name] and values[name].isoformat() for name in ("index_time", "retract_time", "delete_time")}
    return {**values, **times, "held_chunks": held_chunks}


def to_document(record: Mapping[str, Any]) -> StoredDocument:
    """A document as it was."""
    values = dict(record)
    values.pop("held_chunks")
    for name in ("index_time", "retract_time", "delete_time"):
        values[name] = values[name] and datetime.fromisoformat(values[name])
    return StoredDocument(**values)


def record_of(held: Any) -> dict[str, Any]:
    """The record in a document's object."""
    record: dict[str, Any] = json.loads(held.properties["body"])
    return record
