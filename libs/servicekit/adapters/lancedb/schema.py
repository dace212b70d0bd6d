"""The columns of a tenant's tables, and rows to and from domain types.

Used by `tenant.py` and `rebuild.py`. Metadata fields are typed columns `m_<name>` of the chunks table, so that filters
run inside the store; the values themselves are kept as JSON, exactly as they came.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # ships no stubs

from servicekit.domain.chunk import Chunk
from servicekit.domain.filter import FieldKind
from servicekit.ports.vector_store import IndexedChunk, StoredChunk, StoredDocument

METADATA_PREFIX = "m_"
_KIND_TYPES = {FieldKind.TEXT: pa.string(), FieldKind.NUMBER: pa.float64(), FieldKind.BOOLEAN: pa.bool_()}
_TIME = pa.timestamp("us", tz="UTC")
_CHUNK_FIELDS = (
    ("chunk_id", pa.string()),
    ("document_id", pa.string()),
    ("revision", pa.int64()),
    ("content_hash", pa.string()),
    ("text", pa.string()),
    ("title", pa.string()),
    ("source_uri", pa.string()),
    ("heading_path", pa.list_(pa.string())),
    ("start", pa.int32()),
    ("end", pa.int32()),
    ("ordinal", pa.int32()),
    ("token_count", pa.int32()),
    ("metadata", pa.string()),
)
CHUNK_COLUMNS = [name for name, _ in _CHUNK_FIELDS]
# Every chunk ever current, without vectors; what erasure empties.
ARCHIVE_SCHEMA = pa.schema([*_CHUNK_FIELDS, ("erase_time", _TIME)])
# What erasure writes over an archived chunk, as SQL.
ERASED_SQL = {"text": "''", "title": "''", "source_uri": "''", "metadata": "'{}'", "heading_path": "NULL"}
DOCUMENT_SCHEMA = pa.schema(
    [
        ("document_id", pa.string()),
        ("revision", pa.int64()),
        ("content_hash", pa.string()),
        ("fingerprint", pa.string()),
        ("index_time", _TIME),
        ("title", pa.string()),
        ("source_uri", pa.string()),
        ("media_type", pa.string()),
        ("chunk_count", pa.int32()),
        ("content_bytes", pa.int64()),
        ("metadata", pa.string()),
        ("retract_time", _TIME),
        ("delete_time", _TIME),
        ("corpus_version", pa.int64()),
    ]
)


def chunk_schema(dimension: int, fields: Mapping[str, FieldKind]) -> pa.Schema:
    """Live chunks with vectors of this length; 0 stands for no vectors yet, which the store holds no column of."""
    vector = pa.list_(pa.float32(), max(dimension, 1))
    return pa.schema([*_CHUNK_FIELDS, ("search_text", pa.string()), ("vector", vector), *metadata_columns(fields)])


def metadata_fields(schema: pa.Schema) -> dict[str, FieldKind]:
    """The metadata fields that the chunks table has columns for."""
    kinds = {arrow: kind for kind, arrow in _KIND_TYPES.items()}
    return {
        column.name.removeprefix(METADATA_PREFIX): kinds[column.type]
        for column in schema
        if column.name.startswith(METADATA_PREFIX)
    }


def metadata_columns(fields: Mapping[str, FieldKind]) -> pa.Schema:
    """Columns for these metadata fields."""
    return pa.schema([(METADATA_PREFIX + name, _KIND_TYPES[kind]) for name, kind in fields.items()])


def live_rows(indexed: Sequence[IndexedChunk], schema: pa.Schema) -> pa.Table:
    """These chunks as a table of `schema`."""
    columns = _chunk_columns([one.chunk for one in indexed])
    columns["search_text"] = [one.search_text for one in indexed]
    for name, kind in metadata_fields(schema).items():
        values = [one.chunk.metadata.get(name) for one in indexed]
        numeric = kind is FieldKind.NUMBER
        columns[METADATA_PREFIX + name] = (
            [None if value is None else float(value) for value in values] if numeric else values
        )
    columns["vector"] = _vectors(indexed, schema.field("vector").type)
    return pa.table([pa.array(columns[column.name], column.type) for column in schema], schema=schema)


def archive_rows(indexed: Sequence[IndexedChunk]) -> pa.Table:
    """The same chunks for the archive."""
    chunks = [one.chunk for one in indexed]
    columns = _chunk_columns(chunks) | {"erase_time": [None] * len(chunks)}
    return pa.table(columns, schema=ARCHIVE_SCHEMA)


def document_rows(documents: Sequence[StoredDocument], *, corpus_version: int) -> pa.Table:
    """Documents as changed at this corpus version."""
    columns: dict[str, list[Any]] = {
        name: [getattr(document, name) for document in documents]
        for name in DOCUMENT_SCHEMA.names
        if name not in {"metadata", "corpus_version"}
    }
    columns["metadata"] = [json.dumps(dict(document.metadata)) for document in documents]
    columns["corpus_version"] = [corpus_version] * len(documents)
    return pa.table(columns, schema=DOCUMENT_SCHEMA)


def to_chunk(row: Mapping[str, Any]) -> Chunk:
    """A row of the chunks table or the archive."""
    values = {name: row[name] for name in CHUNK_COLUMNS}
    values["heading_path"] = tuple(values["heading_path"] or ())
    values["metadata"] = json.loads(values["metadata"])
    return Chunk(**values)


def to_indexed_chunk(row: Mapping[str, Any]) -> IndexedChunk:
    """A row of the chunks table that was read without its vector."""
    return IndexedChunk(to_chunk(row), (), row["search_text"])


def to_stored_chunk(row: Mapping[str, Any]) -> StoredChunk:
    """A row of the archive."""
    erased = row["erase_time"]
    return StoredChunk(None, erased) if erased is not None else StoredChunk(to_chunk(row))


def to_document(row: Mapping[str, Any]) -> StoredDocument:
    """A row of the documents table."""
    values = {name: row[name] for name in DOCUMENT_SCHEMA.names if name != "corpus_version"}
    return StoredDocument(**{**values, "metadata": json.loads(values["metadata"])})


def erased_document(document: StoredDocument, erase_time: Any) -> StoredDocument:
    """The tombstone of a document."""
    return replace(document, title="", source_uri="", metadata={}, chunk_count=0, delete_time=erase_time)


def _chunk_columns(chunks: Sequence[Chunk]) -> dict[str, Any]:
    columns: dict[str, Any] = {name: [getattr(chunk, name) for chunk in chunks] for name in CHUNK_COLUMNS}
    columns["metadata"] = [json.dumps(dict(chunk.metadata)) for chunk in chunks]
    columns["heading_path"] = [list(chunk.heading_path) for chunk in chunks]
    return columns


def _vectors(indexed: Sequence[IndexedChunk], kind: pa.DataType) -> pa.Array:
    if not indexed:
        return pa.array([], kind)
    flat = np.asarray([one.vector for one in indexed], dtype=np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), kind.list_size)
