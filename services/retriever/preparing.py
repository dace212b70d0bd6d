"""Prepares documents for indexing: check, compare with what is stored, parse, cut, describe. Pure and CPU-bound.

Called by `indexing.py` in a thread, a whole request at a time.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from servicekit.domain.chunk import Chunk
from servicekit.domain.filter import FieldKind
from servicekit.domain.ids import derive_id
from servicekit.domain.metadata import merge_fields
from servicekit.errors import InvalidRequest
from servicekit.ports.embedder import EmbeddingModel, Tokenizer
from servicekit.ports.vector_store import StoredDocument
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
    RETRACTED = "retracted"


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
class Draft:
    """A document to be stored anew: its chunks, and for each the text that is embedded and searched."""

    document: StoredDocument
    chunks: tuple[Chunk, ...]
    search_texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Preparer:
    """What all documents of a process are cut by."""

    tokenizer: Tokenizer
    model: EmbeddingModel
    rules: ChunkRules

    def prepare(
        self,
        tenant: str,
        documents: Sequence[SubmittedDocument],
        *,
        known: Mapping[str, StoredDocument],
        fields: Mapping[str, FieldKind],
        path: str,
        now: datetime,
    ) -> tuple[list[IndexResult], list[Draft]]:
        """A result for each document in order, and drafts of those to be stored."""
        results: list[IndexResult] = []
        drafts: list[Draft] = []
        for place, document in enumerate(documents):
            stored = known.get(document.document_id)
            try:
                check_document(document, path=path.format(place))
                fields = merge_fields(fields, [document.metadata])
                draft = self._draft(tenant, document, stored, now)
            except InvalidRequest as exc:
                results.append(_refused(document, exc))
                continue
            if draft is not None:
                drafts.append(draft)
                live = stored is not None and stored.delete_time is None
                results.append(_result(draft.document, Outcome.UPDATED if live else Outcome.CREATED))
            elif stored is not None:
                results.append(_result(stored, Outcome.UNCHANGED))
        return results, drafts

    def _draft(
        self, tenant: str, document: SubmittedDocument, known: StoredDocument | None, now: datetime
    ) -> Draft | None:
        """The document cut into chunks, or None if it is stored just so already."""
        content_hash = hash_document(document)
        made_by = f"{content_hash} {self.model.id} {CHUNKER_VERSION} {self.rules}"
        fingerprint = hashlib.sha256(made_by.encode()).hexdigest()
        if known is not None and known.delete_time is None and known.fingerprint == fingerprint:
            return None
        parsed = _PARSERS[read_media_type(document.media_type)](decode_content(document.content))
        pieces = cut(parsed, self.tokenizer, rules=self.rules)
        if not pieces:
            raise InvalidRequest(
                "document.content shows no text once its markup is read: give some text",
                field="document.content",
                reason="EMPTY_DOCUMENT",
            )
        stored = StoredDocument(
            document_id=document.document_id,
            revision=known.revision + 1 if known else 1,
            content_hash=content_hash,
            fingerprint=fingerprint,
            index_time=now,
            title=document.title or parsed.title,
            source_uri=document.source_uri,
            media_type=read_media_type(document.media_type),
            chunk_count=len(pieces),
            content_bytes=len(document.content),
            metadata=dict(document.metadata),
        )
        chunks = tuple(_chunk(tenant, stored, parsed.text, place, piece) for place, piece in enumerate(pieces))
        return Draft(stored, chunks, tuple(self._search_text(chunk) for chunk in chunks))

    def _search_text(self, chunk: Chunk) -> str:
        """The chunk behind its title and headings, which often name what the text only calls "it"."""
        names = [chunk.title, *chunk.heading_path]
        context = " > ".join(name for place, name in enumerate(names) if name and name not in names[:place])
        room = min(MAX_CONTEXT_TOKENS, self.model.max_tokens - SPECIAL_TOKENS - chunk.token_count)
        offsets = self.tokenizer.offsets(context)
        if len(offsets) > room:
            context = context[: offsets[room - 1][1]] if room > 0 else ""
        return f"{context}\n{chunk.text}" if context else chunk.text


def _chunk(tenant: str, document: StoredDocument, source: str, ordinal: int, piece: Piece) -> Chunk:
    text = source[piece.start : piece.end]
    return Chunk(
        chunk_id=derive_id("chunk", tenant, document.document_id, str(document.revision), str(ordinal)),
        document_id=document.document_id,
        revision=document.revision,
        content_hash=hashlib.sha256(text.encode()).hexdigest(),
        text=text,
        title=document.title,
        source_uri=document.source_uri,
        heading_path=piece.heading_path,
        start=piece.start,
        end=piece.end,
        ordinal=ordinal,
        token_count=piece.token_count,
        metadata=document.metadata,
    )


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


def withdrawn(document: StoredDocument, outcome: Outcome) -> IndexResult:
    """The result of a retraction or a deletion: what is still known of the last revision."""
    return _result(document, outcome)


def _refused(document: SubmittedDocument, error: InvalidRequest) -> IndexResult:
    return IndexResult(
        document_id=document.document_id,
        outcome=Outcome.REFUSED,
        source_uri=document.source_uri,
        content_bytes=len(document.content),
        error=error,
    )
