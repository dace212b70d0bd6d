"""The vector store: documents with their chunks and vectors, one tenant never seeing another's.

Implemented by `adapters.weaviate`, `adapters.lancedb` and `adapters.memory`; used by the retriever, its only owner.

A tenant's index is of one embedding model, named by `EmbeddingModel.id` and pinned by the first write. Vectors of
another model are refused (NotReady, EMBEDDING_MODEL_MISMATCH), a document's or a query's, until `IndexRebuilder`
has built an index of that model beside and switched to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from servicekit.domain.chunk import Chunk, MetadataScalar, ScoredChunk
from servicekit.domain.filter import FieldKind, Filter
from servicekit.domain.fusion import FusionMethod
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
    """One search. `vector` is needed unless sparse, `text` unless dense; `dense_weight` is 0 to 1.

    `model` is the id of the model that made `vector`; empty where there is none. No one waits for a `background`
    search: a store that works harder for its indexes while it is searched does not for that.
    """

    mode: SearchMode
    text: str
    vector: Vector | None
    top_k: int
    model: str = ""
    condition: Filter | None = None
    dense_weight: float = 0.5
    fusion: FusionMethod = FusionMethod.RELATIVE_SCORE
    want_vectors: bool = False
    background: bool = False


@dataclass(frozen=True, slots=True)
class SearchHits:
    """Chunks, best first, of one consistent state of the corpus; seconds per stage (dense, sparse, fuse; or hybrid).

    `vectors` by chunk id, where they were asked for.
    """

    chunks: tuple[ScoredChunk, ...]
    corpus_version: int
    stages_s: Mapping[str, float]
    vectors: Mapping[str, Vector] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChunkPlace:
    """Where a chunk stands: its document, and its place in the current revision from 0."""

    document_id: str
    ordinal: int


@dataclass(frozen=True, slots=True)
class IndexedChunk:
    """A chunk, its vector, and the words it is found by (title and headings before its text)."""

    chunk: Chunk
    vector: Vector
    search_text: str


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """What is kept of a document. `fingerprint` names all that its chunks were made from and by.

    `retract_time` says that no search finds it; its chunks can still be read by content hash.
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
    retract_time: datetime | None = None
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
    """A tenant's corpus: `version` grows with every change and never repeats; counts are of what can be found.

    `model` made the vectors, `dimension` is their length; empty and 0 before the first write.
    """

    version: int
    documents: int
    chunks: int
    fields: Mapping[str, FieldKind]
    model: str = ""
    dimension: int = 0


class ChunkReader(Protocol):
    """Finds chunks."""

    async def search(self, tenant: str, query: SearchQuery) -> SearchHits:
        """Search the current revisions; an unknown tenant has an empty corpus.

        A document being replaced is seen with its old chunks or its new ones: never both, never neither.

        Raises:
            InvalidRequest: the filter names an unknown field, or compares it with another kind of value; the vector
                is missing or of another length.
            NotReady: the query's vector is of another model than the index's.
            BackendUnavailable: the store cannot be read.
        """
        ...

    async def get_places(self, tenant: str, places: Sequence[ChunkPlace]) -> Mapping[ChunkPlace, Chunk]:
        """Chunks of current revisions by their places; places that no chunk has are absent."""
        ...

    async def get_chunks(self, tenant: str, content_hashes: Sequence[str]) -> Mapping[str, StoredChunk]:
        """Chunks by content hash, of retired revisions too; hashes never stored are absent."""
        ...


class DocumentWriter(Protocol):
    """Changes documents. Calls for one document are the caller's to serialise."""

    async def replace_documents(self, tenant: str, revisions: Sequence[DocumentRevision], *, model: str) -> int:
        """Make these the current revisions, all at one instant; returns the corpus version after it.

        Durable when it returns; repeating it changes nothing but the version.

        Raises:
            InvalidRequest: a metadata field holds another kind of value than in other documents.
            NotReady: the index is of another model.
        """
        ...

    async def retract_document(self, tenant: str, document_id: str, *, retract_time: datetime) -> int:
        """Hide a document from every search that begins afterwards; returns the corpus version after it.

        Its record stays, with `retract_time`, and its texts stay readable by content hash. A new revision is found.

        Raises:
            NotFound: there is no such document, or it is deleted.
            NotReady: it is retracted already.
        """
        ...

    async def delete_document(self, tenant: str, document_id: str, *, erase_time: datetime) -> int:
        """Erase a document, retracted or not, with all its revisions, leaving tombstones; returns the version after it.

        Raises:
            NotFound: there is no such document, or it is already deleted.
        """
        ...


class DocumentReader(Protocol):
    """Says which documents there are."""

    async def get_documents(self, tenant: str, document_ids: Sequence[str]) -> Mapping[str, StoredDocument]:
        """Documents by id, tombstones too; unknown ids are absent."""
        ...

    async def list_documents(
        self, tenant: str, *, page_size: int, after: str = "", include_retracted: bool = False
    ) -> Sequence[StoredDocument]:
        """Documents that are not deleted, in the order of their ids by code point, those beyond `after`."""
        ...

    async def describe(self, tenant: str) -> CorpusState:
        """The corpus as it stands."""
        ...


class IndexRebuilder(Protocol):
    """Builds an index of another embedding model beside the one that is searched, and switches to it at one instant.

    Begin, then embed and write what is missing until nothing is, then finish; all of it can be repeated.
    """

    async def list_tenants(self) -> Sequence[str]:
        """Tenants that ever wrote, in any order."""
        ...

    async def begin_rebuild(self, tenant: str, *, model: str, dimension: int) -> None:
        """Have an empty index of this model beside; one of the same model that was begun before goes on as it is."""
        ...

    async def chunks_to_rebuild(self, tenant: str, *, limit: int) -> Sequence[IndexedChunk]:
        """Chunks that can be found and that the new index does not hold yet; their vectors are empty."""
        ...

    async def write_rebuilt(self, tenant: str, chunks: Sequence[IndexedChunk]) -> None:
        """Put chunks with their new vectors into the new index; those no longer current are left out in the end."""
        ...

    async def finish_rebuild(self, tenant: str) -> bool:
        """Switch to the new index and drop the old one, or return False where chunks have come that it lacks."""
        ...


class VectorStore(ChunkReader, DocumentWriter, DocumentReader, IndexRebuilder, Protocol):
    """The whole port; opened by `servicekit.adapters.registry.open_vector_store`."""

    async def ping(self) -> None:
        """Return if the store answers now, else raise BackendUnavailable."""
        ...
