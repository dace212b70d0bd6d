"""Protobuf ↔ domain types of the calls that list documents and describe the index. Used by `server.py`."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

from binnacle.retriever.v1 import retriever_service_pb2 as rpc
from servicekit.errors import InvalidRequest
from servicekit.ports.vector_store import CorpusState, StoredDocument
from services.retriever.convert import document_info_to
from services.retriever.index.reembedding import RebuildProgress

MAX_PAGE, DEFAULT_PAGE = 500, 100


@dataclass(frozen=True, slots=True)
class DocumentPage:
    """At most `size` documents whose ids come after `after`."""

    size: int
    after: str


def page_from(request: rpc.ListDocumentsRequest) -> DocumentPage:
    """Which page is asked for.

    Raises:
        InvalidRequest: the size is out of range, or the token is none of ours.
    """
    size = request.page_size or DEFAULT_PAGE
    if not 1 <= size <= MAX_PAGE:
        raise InvalidRequest(f"page_size must be 1..{MAX_PAGE} or 0, got {size}", field="page_size")
    return DocumentPage(size, _read_token(request.page_token))


def documents_to(documents: Sequence[StoredDocument], *, size: int) -> rpc.ListDocumentsResponse:
    """A page of documents, of which one more than `size` says that there is another page."""
    shown = documents[:size]
    token = _make_token(shown[-1].document_id) if len(documents) > size else ""
    return rpc.ListDocumentsResponse(documents=[document_info_to(one) for one in shown], next_page_token=token)


def index_to(state: CorpusState, rebuild: RebuildProgress | None = None) -> rpc.GetIndexResponse:
    """The index as it stands, and the one that is being built beside it."""
    reembedding = None
    if rebuild is not None:
        reembedding = rpc.Reembedding(
            embedding_model=rebuild.model, chunks_done=rebuild.chunks_done, chunks_total=rebuild.chunks_total
        )
    return rpc.GetIndexResponse(
        reembedding=reembedding,
        corpus_version=state.version,
        documents=state.documents,
        chunks=state.chunks,
        embedding_model=state.model,
        dimension=state.dimension,
    )


def _make_token(document_id: str) -> str:
    return base64.urlsafe_b64encode(document_id.encode()).decode()


def _read_token(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as exc:
        raise InvalidRequest(
            f"page_token must be the next_page_token of an earlier answer, got {token[:40]!r}", field="page_token"
        ) from exc
