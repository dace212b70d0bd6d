"""Prepares documents: check, compare with what is stored, read, cut, describe. CPU-bound, in a thread.

A step of `indexing.py`. Formats that are no text are read by another process (`parse_workers.py`).
"""

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from servicekit.domain.chunk import Chunk
from servicekit.domain.ids import derive_id
from servicekit.domain.metadata import merge_fields
from servicekit.errors import InvalidRequest
from servicekit.ports.embedder import Embedder
from servicekit.ports.vector_store import StoredDocument
from services.retriever.formats.media_types import BINARY_TYPES, CSV, JSON_LINES
from services.retriever.formats.parsing import ParsedDocument
from services.retriever.formats.reading import parse_text
from services.retriever.ingestion.chunking import CHUNKER_VERSION, ChunkRules, Piece, cut
from services.retriever.ingestion.document import check_document, decode_content, hash_document, read_media_type
from services.retriever.ingestion.quality import Decision, Flag, find_boilerplate, find_language
from services.retriever.ingestion.results import Outcome, stored_as
from services.retriever.ingestion.submission import Fingerprint, read_fingerprint
from services.retriever.ingestion.work import Draft, Item, Work

# Tokens of the title and headings that are embedded in front of a chunk.
MAX_CONTEXT_TOKENS = 32
SPECIAL_TOKENS = 2
MAX_CHUNKS = 20_000
# The embedder's threads do the work that counts; more than these would only take turns with them.
_THREADS = 2


class BinaryReader(Protocol):
    """Reads formats that are no text, within bounds of memory and time."""

    async def read(self, content: bytes, *, media_type: str) -> ParsedDocument:
        """The document's text and blocks.

        Raises:
            InvalidRequest: it is damaged, or beyond the bounds.
        """
        ...


@dataclass(frozen=True, slots=True)
class TextChecks:
    """What is done about a text that is worth little; `expected_languages` empty: any language will do."""

    boilerplate: Decision = Decision.FLAG
    language: Decision = Decision.FLAG
    expected_languages: frozenset[str] = frozenset()


class Preparer:
    """What all documents of a process are cut by; `policy` names further settings that shape what is stored."""

    def __init__(
        self,
        rules: ChunkRules,
        *,
        binaries: BinaryReader,
        checks: TextChecks,
        policy: str = "",
    ) -> None:
        self._rules = rules
        self._binaries = binaries
        self._checks = checks
        self._policy = policy
        self._threads = asyncio.Semaphore(_THREADS)

    async def __call__(self, work: Work) -> None:
        """Give each document a result, or a draft to be stored."""
        async with self._threads:
            to_read = await asyncio.to_thread(self._examine_all, work)
        for item, fingerprint, media_type in to_read:
            try:
                parsed = await self._binaries.read(item.document.content, media_type=media_type)
            except InvalidRequest as exc:
                item.refuse(exc)
                continue
            async with self._threads:
                await asyncio.to_thread(self._finish, work, item, fingerprint, media_type, parsed)

    def _examine_all(self, work: Work) -> list[tuple[Item, Fingerprint, str]]:
        """Texts are done with; returns those that another process has to read."""
        to_read = []
        for item in list(work.open()):
            try:
                check_document(item.document, path=item.path)
                fields = merge_fields(work.fields, [item.document.metadata])
                fingerprint = self._compare(work, item)
                work.fields = fields
            except InvalidRequest as exc:
                item.refuse(exc)
                continue
            if fingerprint is None:
                continue
            media_type = read_media_type(item.document, path=item.path)
            if media_type in BINARY_TYPES:
                to_read.append((item, fingerprint, media_type))
                continue
            self._finish(work, item, fingerprint, media_type, None)
        return to_read

    def _compare(self, work: Work, item: Item) -> Fingerprint | None:
        """The fingerprint of what is to be stored, or None with a result if it is, or something newer is.

        Raises:
            InvalidRequest: it is what was retracted.
        """
        made_by = (
            f"{hash_document(item.document)} {work.embedder.model.id} {CHUNKER_VERSION} {self._rules}{self._policy}"
        )
        digest, stored = hashlib.sha256(made_by.encode()).hexdigest(), item.stored
        if stored is None:
            return Fingerprint(digest, work.place)
        before = read_fingerprint(stored.fingerprint)
        if work.place is not None and before.place is not None and not work.place.is_newer_than(before.place):
            item.result = stored_as(stored, Outcome.UNCHANGED)
            return None
        if work.place is not None:
            _check_not_withdrawn_since(item, stored, submit_time=work.place.submit_time)
        if stored.delete_time is None and before.digest == digest:
            if stored.retract_time is not None:
                raise InvalidRequest(
                    f"{item.path} is the very content that was retracted at {stored.retract_time:%Y-%m-%d %H:%M} UTC: "
                    "change it, or delete the document first",
                    field=item.path,
                    reason="DOCUMENT_RETRACTED",
                )
            item.result = stored_as(stored, Outcome.UNCHANGED)
            return None
        return Fingerprint(digest, work.place or before.place)

    def _finish(
        self, work: Work, item: Item, fingerprint: Fingerprint, media_type: str, parsed: ParsedDocument | None
    ) -> None:
        """Read (if it was not), check and cut."""
        try:
            if parsed is None:
                parsed = parse_text(decode_content(item.document, path=item.path), media_type=media_type)
            self._check_text(item, parsed, media_type)
            if item.result is None:
                item.draft = self._draft(work, item, fingerprint, media_type, parsed)
        except InvalidRequest as exc:
            item.refuse(exc)

    def _check_text(self, item: Item, parsed: ParsedDocument, media_type: str) -> None:
        checks = self._checks
        # Rows repeat by their nature, and are of names and numbers more than of a language.
        tabular = media_type in {CSV, JSON_LINES}
        if checks.boilerplate is not Decision.OFF and not tabular and (why := find_boilerplate(parsed)):
            item.flag(Flag.BOILERPLATE)
            if checks.boilerplate is Decision.REFUSE:
                item.refuse_content(f"is mostly boilerplate, {why}: hand in the text alone", reason="BOILERPLATE")
                return
        if checks.language is Decision.OFF or tabular:
            return
        item.language = find_language(parsed.text)
        if not checks.expected_languages or item.language in {"", *checks.expected_languages}:
            return
        item.flag(Flag.UNEXPECTED_LANGUAGE)
        if checks.language is Decision.REFUSE:
            expected = ", ".join(sorted(checks.expected_languages))
            item.refuse_content(
                f"is in the language {item.language!r}, expected are {expected}: translate it, or widen "
                "expected_languages in the retriever's settings",
                reason="UNEXPECTED_LANGUAGE",
            )

    def _draft(
        self, work: Work, item: Item, fingerprint: Fingerprint, media_type: str, parsed: ParsedDocument
    ) -> Draft:
        """The document cut into chunks."""
        pieces = cut(parsed, work.embedder.tokenizer, rules=self._rules)
        document = item.document
        if not 1 <= len(pieces) <= MAX_CHUNKS:
            problem = (
                f"makes {len(pieces)} chunks, {MAX_CHUNKS} are the bound: split the document"
                if pieces
                else "shows no text once its markup is read: give some text"
            )
            raise InvalidRequest(
                f"{item.path}.content {problem}",
                field=f"{item.path}.content",
                reason="DOCUMENT_TOO_LARGE" if pieces else "EMPTY_DOCUMENT",
            )
        stored = StoredDocument(
            document_id=document.document_id,
            revision=item.stored.revision + 1 if item.stored else 1,
            content_hash=hash_document(document),
            fingerprint=str(fingerprint),
            index_time=work.now,
            title=document.title or parsed.title,
            source_uri=document.source_uri,
            media_type=media_type,
            chunk_count=len(pieces),
            content_bytes=len(document.content),
            metadata=dict(document.metadata),
        )
        chunks = tuple(_chunk(work.tenant, stored, parsed.text, place, piece) for place, piece in enumerate(pieces))
        return Draft(stored, chunks, tuple(search_text(chunk, work.embedder) for chunk in chunks))


def _check_not_withdrawn_since(item: Item, stored: StoredDocument, *, submit_time: datetime) -> None:
    """Refuse what waited in its topic while the document was withdrawn: it would come back by itself.

    Raises:
        InvalidRequest: it was deleted or retracted after this was submitted.
    """
    withdraw_time = stored.delete_time or stored.retract_time
    if withdraw_time is not None and submit_time <= withdraw_time:
        what = "deleted" if stored.delete_time else "retracted"
        raise InvalidRequest(
            f"{item.path} was submitted at {submit_time:%Y-%m-%d %H:%M:%S} UTC and {what} at "
            f"{withdraw_time:%H:%M:%S} UTC: submit it again if it is to be found",
            field=item.path,
            reason="DOCUMENT_WITHDRAWN_SINCE",
        )


def search_text(chunk: Chunk, embedder: Embedder) -> str:
    """The chunk behind its title and headings, which often name what the text only calls "it"."""
    context = chunk.context
    room = min(MAX_CONTEXT_TOKENS, embedder.model.max_tokens - SPECIAL_TOKENS - chunk.token_count)
    offsets = embedder.tokenizer.offsets(context)
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
