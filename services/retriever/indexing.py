"""Turns documents into indexed chunks: check, compare with what is stored, cut, embed, swap in.

Called by `server.py` for documents handed in directly, and by `events.py` for submitted ones.

Idempotent: a document whose content, metadata, cutting rules and embedding model are unchanged is left alone.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from weakref import WeakValueDictionary

from servicekit.domain.chunk import Chunk
from servicekit.domain.ids import derive_id
from servicekit.domain.metadata import merge_fields
from servicekit.errors import InvalidRequest
from servicekit.ports.clock import Clock
from servicekit.ports.embedder import Embedder
from servicekit.ports.vector_store import DocumentRevision, IndexedChunk, StoredDocument, VectorStore

from services.retriever.chunking import CHUNKER_VERSION, ChunkRules, Piece, cut
from services.retriever.document import (
    SubmittedDocument,
    check_document,
    decode_content,
    hash_document,
    read_media_type,
)
from services.retriever.html_text import parse_html
from services.retriever.markdown import parse_markdown
from services.retriever.parsing import ParsedDocument
from services.retriever.plain_text import parse_plain_text

# Tokens of the title and headings that are embedded in front of a chunk.
MAX_CONTEXT_TOKENS = 32
SPECIAL_TOKENS = 2
_PARSERS = {"text/plain": parse_plain_text, "text/markdown": parse_markdown, "text/html": parse_html}


class Outcome(StrEnum):
    """What happened to a document."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class IndexResult:
    """What became of one document; revision and hash are those now current, an error only where refused."""

    document_id: str
    outcome: Outcome
    revision: int = 0
    chunk_count: int = 0
    content_hash: str = ""
    source_uri: str = ""
    content_bytes: int = 0
    error: InvalidRequest | None = None


@dataclass(frozen=True, slots=True)
class IndexReport:
    """Results in the order of the documents, the corpus version after them, and the time it took."""

    results: tuple[IndexResult, ...]
    corpus_version: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class _Draft:
    """A document to be stored anew, cut into pieces, not yet embedded."""

    document: StoredDocument
    parsed: ParsedDocument
    pieces: tuple[Piece, ...]


class Indexer:
    """Indexes and deletes; work on one document never overlaps, whoever asks for it."""

    def __init__(
        self, *, store: VectorStore, embedder: Embedder, clock: Clock, rules: ChunkRules | None = None
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._clock = clock
        self._rules = rules or ChunkRules()
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._made_by = f"{embedder.model.id} {CHUNKER_VERSION} {self._rules}"

    async def index(self, tenant: str, documents: Sequence[SubmittedDocument], *, path: str) -> IndexReport:
        """Index documents with different ids; a refused one does not hinder the others.

        Args:
            tenant: whose documents they are.
            documents: what was handed in.
            path: the request's field that holds them, for messages; `{}` stands for the place.

        Raises:
            InvalidRequest: an id stands twice, or metadata clashes with what another call wrote meanwhile.
            BackendUnavailable: the store or the embedder is away; repeating the call is safe.
        """
        started_s = self._clock.monotonic_s()
        _check_distinct(documents)
        async with self._locked(tenant, [document.document_id for document in documents]):
            known = await self._store.get_documents(tenant, [document.document_id for document in documents])
            fields = (await self._store.describe(tenant)).fields
            results: list[IndexResult] = []
            drafts: list[_Draft] = []
            for place, document in enumerate(documents):
                try:
                    check_document(document, path=path.format(place))
                    fields = merge_fields(fields, [document.metadata])
                    draft = await self._draft(document, known.get(document.document_id))
                except InvalidRequest as exc:
                    results.append(_refused(document, exc))
                    continue
                if draft is None:
                    results.append(_result(known[document.document_id], Outcome.UNCHANGED))
                else:
                    drafts.append(draft)
                    results.append(_result(draft.document, _outcome(known.get(document.document_id))))
            version = await self._store_drafts(tenant, drafts)
        return IndexReport(tuple(results), version, self._clock.monotonic_s() - started_s)

    async def delete(self, tenant: str, document_id: str) -> tuple[StoredDocument, int]:
        """Erase a document with its revisions; returns its tombstone and the corpus version after it.

        Raises:
            NotFound: there is none, or it is deleted already.
        """
        async with self._locked(tenant, [document_id]):
            version = await self._store.delete_document(tenant, document_id, erase_time=self._clock.now())
            return (await self._store.get_documents(tenant, [document_id]))[document_id], version

    async def _draft(self, document: SubmittedDocument, known: StoredDocument | None) -> _Draft | None:
        """The document cut into pieces, or None if it is stored just so already."""
        content_hash = hash_document(document)
        fingerprint = hashlib.sha256(f"{content_hash} {self._made_by}".encode()).hexdigest()
        if known is not None and known.delete_time is None and known.fingerprint == fingerprint:
            return None
        parsed, pieces = await asyncio.to_thread(self._cut, document)
        stored = StoredDocument(
            document_id=document.document_id,
            revision=known.revision + 1 if known else 1,
            content_hash=content_hash,
            fingerprint=fingerprint,
            index_time=self._clock.now(),
            title=document.title or parsed.title,
            source_uri=document.source_uri,
            media_type=read_media_type(document.media_type),
            chunk_count=len(pieces),
            content_bytes=len(document.content),
            metadata=dict(document.metadata),
        )
        return _Draft(stored, parsed, pieces)

    def _cut(self, document: SubmittedDocument) -> tuple[ParsedDocument, tuple[Piece, ...]]:
        parsed = _PARSERS[read_media_type(document.media_type)](decode_content(document.content))
        pieces = cut(parsed, self._embedder.tokenizer, rules=self._rules)
        if not pieces:
            raise InvalidRequest(
                "document.content shows no text once its markup is read: give some text",
                field="document.content",
                reason="EMPTY_DOCUMENT",
            )
        return parsed, pieces

    async def _store_drafts(self, tenant: str, drafts: Sequence[_Draft]) -> int:
        if not drafts:
            return (await self._store.describe(tenant)).version
        chunks = [_chunks(tenant, draft) for draft in drafts]
        texts = [self._search_text(chunk) for group in chunks for chunk in group]
        vectors = iter(await self._embedder.embed_documents(texts))
        words = iter(texts)
        revisions = [
            DocumentRevision(draft.document, tuple(IndexedChunk(chunk, next(vectors), next(words)) for chunk in group))
            for draft, group in zip(drafts, chunks, strict=True)
        ]
        return await self._store.replace_documents(tenant, revisions)

    def _search_text(self, chunk: Chunk) -> str:
        """The chunk behind its title and headings, which often name what the text only calls "it"."""
        names = [chunk.title, *chunk.heading_path]
        context = " > ".join(name for place, name in enumerate(names) if name and name not in names[:place])
        room = self._embedder.model.max_tokens - SPECIAL_TOKENS - chunk.token_count
        offsets = self._embedder.tokenizer.offsets(context)
        allowed = min(MAX_CONTEXT_TOKENS, room)
        if len(offsets) > allowed:
            context = context[: offsets[allowed - 1][1]] if allowed > 0 else ""
        return f"{context}\n{chunk.text}" if context else chunk.text

    @asynccontextmanager
    async def _locked(self, tenant: str, document_ids: Sequence[str]) -> AsyncIterator[None]:
        """Hold the documents' locks, taken in one order so that two calls never wait for each other."""
        async with AsyncExitStack() as held:
            for document_id in sorted(document_ids):
                lock = self._locks.setdefault((tenant, document_id), asyncio.Lock())
                await held.enter_async_context(lock)
            yield


def _chunks(tenant: str, draft: _Draft) -> tuple[Chunk, ...]:
    document = draft.document
    return tuple(
        Chunk(
            chunk_id=derive_id("chunk", tenant, document.document_id, str(document.revision), str(ordinal)),
            document_id=document.document_id,
            revision=document.revision,
            content_hash=hashlib.sha256(draft.parsed.text[piece.start : piece.end].encode()).hexdigest(),
            text=draft.parsed.text[piece.start : piece.end],
            title=document.title,
            source_uri=document.source_uri,
            heading_path=piece.heading_path,
            start=piece.start,
            end=piece.end,
            ordinal=ordinal,
            token_count=piece.token_count,
            metadata=document.metadata,
        )
        for ordinal, piece in enumerate(draft.pieces)
    )


def _check_distinct(documents: Sequence[SubmittedDocument]) -> None:
    seen: set[str] = set()
    for place, document in enumerate(documents):
        if document.document_id in seen:
            raise InvalidRequest(
                f"documents[{place}].document_id {document.document_id!r} stands in this request already: "
                "send each document once",
                field=f"documents[{place}].document_id",
                reason="DUPLICATE_DOCUMENT_ID",
            )
        seen.add(document.document_id)


def _outcome(known: StoredDocument | None) -> Outcome:
    return Outcome.CREATED if known is None or known.delete_time is not None else Outcome.UPDATED


def _result(document: StoredDocument, outcome: Outcome) -> IndexResult:
    return IndexResult(
        document_id=document.document_id,
        outcome=outcome,
        revision=document.revision,
        chunk_count=document.chunk_count,
        content_hash=document.content_hash,
        source_uri=document.source_uri,
        content_bytes=document.content_bytes,
    )


def _refused(document: SubmittedDocument, error: InvalidRequest) -> IndexResult:
    return IndexResult(
        document_id=document.document_id,
        outcome=Outcome.REFUSED,
        source_uri=document.source_uri,
        content_bytes=len(document.content),
        error=error,
    )
