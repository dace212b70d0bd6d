"""Builds stored documents, chunks and revisions for tests of vector stores and of what uses them."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from servicekit.adapters.memory.embedder import MemoryEmbedder, embed_words
from servicekit.domain.chunk import Chunk, MetadataScalar
from servicekit.ports.vector_store import DocumentRevision, DocumentWriter, IndexedChunk, StoredDocument

MODEL = MemoryEmbedder.model.id
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def content_hash(text: str) -> str:
    """As the retriever hashes a chunk's text."""
    return hashlib.sha256(text.encode()).hexdigest()


async def put(store: DocumentWriter, tenant: str, revisions: Sequence[DocumentRevision]) -> int:
    """Make these the current revisions, with the vectors of `make_revision`; returns the corpus version."""
    return await store.replace_documents(tenant, revisions, model=MODEL)


def make_revision(
    document_id: str,
    texts: Sequence[str],
    *,
    revision: int = 1,
    title: str = "",
    source_uri: str = "",
    metadata: Mapping[str, MetadataScalar] | None = None,
) -> DocumentRevision:
    """A document whose chunks are these texts; vectors are 64 values of hashed words."""
    chunks, start = [], 0
    for ordinal, text in enumerate(texts):
        chunk = Chunk(
            chunk_id=f"{document_id}/{revision}/{ordinal}",
            document_id=document_id,
            revision=revision,
            content_hash=content_hash(text),
            text=text,
            title=title,
            source_uri=source_uri,
            heading_path=("Chapter", f"Part {ordinal}"),
            start=start,
            end=start + len(text),
            ordinal=ordinal,
            token_count=len(text.split()),
            metadata=dict(metadata or {}),
        )
        start = chunk.end + 1
        chunks.append(IndexedChunk(chunk, embed_words(text), text))
    document = StoredDocument(
        document_id=document_id,
        revision=revision,
        content_hash=content_hash("\n".join(texts)),
        fingerprint=content_hash("\n".join([title, *texts])),
        index_time=NOON,
        title=title,
        source_uri=source_uri,
        media_type="text/plain",
        chunk_count=len(chunks),
        content_bytes=len("\n".join(texts).encode()),
        metadata=dict(metadata or {}),
    )
    return DocumentRevision(document, tuple(chunks))
