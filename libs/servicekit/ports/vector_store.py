"""The vector store: documents with their chunks and vectors, one tenant never seeing another's.

Implemented by `adapters.lancedb` and `adapters.memory`; used by the retriever, its only owner.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from servicekit.domain.chunk import Chunk, MetadataScalar, ScoredChunk
from servicekit.domain.filter import FieldKind, Filter
from servicekit.ports.embedder import Vector

# How deep each ranking of a hybrid search goes at least: its last score sets the scale of the fusion.
MIN_FUSION_DEPTH = 100


class SearchMode(StrEnum):
    """What ranks the chunks."""

    DENSE = "dense"
    SPARSE = "sparse"
    HYBRID = "hybrid"


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """One search. `vector` is needed unless sparse, `text` unless dense; `dense_weight` is 0 to 1."""

    mode: SearchMode
    text: str
    vector: Vector | None
    top_k: int
    condition: Filter | None = None
    dense_weight: float = 0.5


@dataclass(frozen=True, slots=True)
class SearchHits:
    """Chunks, best first, of one consistent state of the corpus; seconds per stage (dense, sparse, fuse)."""

    chunks: tuple[ScoredChunk, ...]
    corpus_version: int
    stages_s: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class IndexedChunk:
    """A chunk, its vector, and the words it is found by (title and headings before its text)."""

    chunk: Chunk
    vector: Vector
    search_text: str


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """What is kept of a document. `fingerprint` names all that its chunks were made from and by.

    `delete_time` marks a tombstone: revision and hashes stay, title, source and metadata are gone.
    """

    document_id: str
    revision: int
    content_hash: str
    fingerprint: str
    index_time: datetime
    title: str = ""
    source_uri: str = ""
    media_type: str = ""
    chunk_count: int = 0
    content_bytes: int = 0
    metadata: Mapping[str, MetadataScalar] = field(default_factory=dict)
    delete_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class DocumentRevision:
    """A document with the chunks of its new current revision."""

    document: StoredDocument
    chunks: tuple[IndexedChunk, ...]


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """What is found under a content hash: the newest chunk that holds it, or the time of its erasure."""

    chunk: Chunk | None
    erase_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class CorpusState:
    """A tenant's corpus: `version` grows with every change and never repeats."""

    version: int
    documents: int
    chunks: int
    fields: Mapping[str, FieldKind]


class ChunkReader(Protocol):
    """Finds chunks."""

    async def search(self, tenant: str, query: SearchQuery) -> SearchHits:
        """Search the current revisions; an unknown tenant has an empty corpus.

        A document being replaced is seen with its old chunks or its new ones: never both, never neither.

        Raises:
            InvalidRequest: the filter names an unknown field, or compares it with another kind of value.
            BackendUnavailable: the store cannot be read.
        """
        ...

    async def get_chunks(self, tenant: str, content_hashes: Sequence[str]) -> Mapping[str, StoredChunk]:
        """Chunks by content hash, of retired revisions too; hashes never stored are absent."""
        ...


class DocumentWriter(Protocol):
    """Changes documents. Calls for one document are the caller's to serialise."""

    async def replace_documents(self, tenant: str, revisions: Sequence[DocumentRevision]) -> int:
        """Make these the current revisions, all at one instant; returns the corpus version after it.

        Durable when it returns; repeating it changes nothing but the version.

        Raises:
            InvalidRequest: a metadata field holds another kind of value than in other documents.
        """
        ...

    async def delete_document(self, tenant: str, document_id: str, *, erase_time: datetime) -> int:
        """Erase a document with all its revisions, leaving tombstones; returns the corpus version after it.

        Raises:
            NotFound: there is no such document, or it is already deleted.
        """
        ...


class DocumentReader(Protocol):
    """Says which documents there are."""

    async def get_documents(self, tenant: str, document_ids: Sequence[str]) -> Mapping[str, StoredDocument]:
        """Documents by id, tombstones too; unknown ids are absent."""
        ...

    async def list_documents(self, tenant: str, *, page_size: int, after: str = "") -> Sequence[StoredDocument]:
        """Live documents in the order of their ids, those beyond `after`."""
        ...

    async def describe(self, tenant: str) -> CorpusState:
        """The corpus as it stands."""
        ...


class VectorStore(ChunkReader, DocumentWriter, DocumentReader, Protocol):
    """The whole port; opened by `servicekit.adapters.registry.open_vector_store`."""

    async def ping(self) -> None:
        """Return if the store answers now, else raise BackendUnavailable."""
        ...
