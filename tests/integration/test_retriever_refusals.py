"""Bad input at every RPC of the retriever: the right status, field, value and fix, and the next request works."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest

from binnacle.retriever.v1 import retriever_service_pb2 as rpc
from binnacle.type.v1 import chunk_pb2
from servicekit.errors import InvalidRequest
from servicekit.testing.in_process import caller
from tests.integration.retriever_stack import Retriever, as_error, make_document, make_filter, running_retriever

BREAD = "Bread is made of flour, water, salt and yeast."
HASH = "0" * 64
Call = Callable[[Retriever], Awaitable[object]]


@pytest.fixture
async def retriever(tmp_path: Path) -> AsyncIterator[Retriever]:
    """A retriever that holds one document of `acme`."""
    async with running_retriever(tmp_path, vector_store_url="memory://") as running:
        with caller():
            await running.index(make_document("bread", BREAD, metadata={"year": 2024}))
            yield running


def _search(**fields: object) -> Call:
    request = rpc.SearchChunksRequest(**({"query": "bread"} | fields))  # type: ignore[arg-type]  # spelled at each call
    return lambda running: running.stub.SearchChunks(request)


def _index(*documents: rpc.Document) -> Call:
    return lambda running: running.stub.IndexDocuments(rpc.IndexDocumentsRequest(documents=documents))


def _submit(**document: object) -> Call:
    message = rpc.Document(**document)  # type: ignore[arg-type]  # spelled at each call
    return lambda running: running.stub.SubmitDocument(rpc.SubmitDocumentRequest(document=message))


def _hashes(*hashes: str) -> Call:
    return lambda running: running.stub.BatchGetChunks(rpc.BatchGetChunksRequest(content_hashes=hashes))


def _deep_filter() -> chunk_pb2.Filter:
    message = make_filter("year", chunk_pb2.OPERATOR_EQUAL, [1])
    for _ in range(40):
        message = chunk_pb2.Filter(none=message)
    return message


INVALID: list[tuple[str, Call, str, str]] = [
    ("no query", _search(query=""), "query", "blank"),
    ("blank query", _search(query=" \n\t"), "query", "blank"),
    ("long query", _search(query="x" * 8_193), "query", "8193"),
    ("negative top_k", _search(top_k=-1), "top_k", "-1"),
    ("absurd top_k", _search(top_k=2**31 - 1), "top_k", "2147483647"),
    ("unknown mode", _search(mode=99), "mode", "99"),
    ("weight over 1", _search(dense_weight=1.5), "dense_weight", "1.5"),
    ("weight not a number", _search(dense_weight=float("nan")), "dense_weight", "nan"),
    ("floor infinite", _search(score_floor=float("inf")), "score_floor", "inf"),
    ("empty filter", _search(filter=chunk_pb2.Filter()), "filter", "condition"),
    ("deep filter", _search(filter=_deep_filter()), "filter" + ".none" * 8, "flatten"),
    (
        "unknown field",
        _search(filter=make_filter("yaer", chunk_pb2.OPERATOR_EQUAL, [2024])),
        "filter.comparison.field",
        "did you mean 'year'",
    ),
    (
        "value of another kind",
        _search(filter=make_filter("year", chunk_pb2.OPERATOR_EQUAL, ["2024"])),
        "filter.comparison.values",
        "number",
    ),
    ("no documents", _index(), "documents", "got 0"),
    ("too many documents", _index(*[make_document(f"d{n}", "x") for n in range(257)]), "documents", "257"),
    (
        "too much content",
        _index(*[make_document(f"d{n}", "x" * 1024 * 1024) for n in range(5)]),
        "documents",
        "send fewer",
    ),
    (
        "the same id twice",
        _index(make_document("a", "x"), make_document("a", "y")),
        "documents[1].document_id",
        "'a'",
    ),
    (
        "metadata without a kind",
        _index(rpc.Document(document_id="a", content=b"x", metadata={"k": chunk_pb2.MetadataValue()})),
        "metadata['k']",
        "got none",
    ),
    ("no document", lambda r: r.stub.SubmitDocument(rpc.SubmitDocumentRequest()), "document", "required"),
    ("submitted without id", _submit(content=b"x"), "document.document_id", "printable"),
    ("submitted empty", _submit(document_id="a"), "document.content", "empty"),
    ("submitted rubbish", _submit(document_id="a", content=b"\x00\x01\x02"), "document.content", "binary"),
    ("submitted in latin-1", _submit(document_id="a", content=b"caf\xe9"), "document.content", "byte 3"),
    (
        "submitted too large",
        _submit(document_id="a", content=b"x" * (1024 * 1024 + 1)),
        "document.content",
        "1048577",
    ),
    (
        "submitted as an image",
        _submit(document_id="a", content=b"x", media_type="image/png"),
        "document.media_type",
        "image/png",
    ),
    ("no operation id", lambda r: r.stub.GetOperation(rpc.GetOperationRequest()), "operation_id", "1..64"),
    ("no hashes", _hashes(), "content_hashes", "got 0"),
    ("too many hashes", _hashes(*[HASH] * 257), "content_hashes", "257"),
    ("no hash at all", _hashes(HASH, "xyz"), "content_hashes[1]", "xyz"),
    ("an upper-case hash", _hashes("A" * 64), "content_hashes[0]", "lower-case"),
    ("no document id", lambda r: r.stub.GetDocument(rpc.GetDocumentRequest()), "document_id", "printable"),
    (
        "a long document id",
        lambda r: r.stub.DeleteDocument(rpc.DeleteDocumentRequest(document_id="x" * 300)),
        "document_id",
        "300",
    ),
]


@pytest.mark.parametrize(("call", "field", "hint"), [case[1:] for case in INVALID], ids=[case[0] for case in INVALID])
async def test_a_request_that_can_never_succeed_is_invalid(
    retriever: Retriever, call: Call, field: str, hint: str
) -> None:
    """INVALID_ARGUMENT with the field's path, and a message that holds the value or the fix."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(retriever)
    error = as_error(caught.value)
    assert isinstance(error, InvalidRequest)
    assert error.field == field
    assert hint in error.message
    assert await retriever.texts("flour") == [BREAD]


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda r: r.stub.GetDocument(rpc.GetDocumentRequest(document_id="nothing")), "DOCUMENT_NOT_FOUND"),
        (lambda r: r.stub.DeleteDocument(rpc.DeleteDocumentRequest(document_id="nothing")), "DOCUMENT_NOT_FOUND"),
        (lambda r: r.stub.GetOperation(rpc.GetOperationRequest(operation_id="nothing")), "OPERATION_NOT_FOUND"),
    ],
)
async def test_what_does_not_exist_is_not_found(retriever: Retriever, call: Call, reason: str) -> None:
    """NOT_FOUND with a stable reason."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(retriever)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert as_error(caught.value).reason == reason


@pytest.mark.parametrize(
    ("scope", "call"),
    [
        ("search", _index(make_document("a", "x"))),
        ("search", _submit(document_id="a", content=b"x")),
        ("search", lambda r: r.stub.GetOperation(rpc.GetOperationRequest(operation_id="x"))),
        ("search", lambda r: r.stub.DeleteDocument(rpc.DeleteDocumentRequest(document_id="bread"))),
        ("ingest", _search()),
        ("ingest", _hashes(HASH)),
        ("ingest", lambda r: r.stub.GetDocument(rpc.GetDocumentRequest(document_id="bread"))),
    ],
)
async def test_each_rpc_needs_its_scope(retriever: Retriever, scope: str, call: Call) -> None:
    """Searching is no licence to write, nor the reverse."""
    with caller(scopes=[scope]), pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(retriever)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert await retriever.texts("flour") == [BREAD]


async def test_wrong_utf8_in_a_request_is_refused(retriever: Retriever) -> None:
    """Bytes that are no message never reach the domain, and the next request works."""
    method = retriever.channel.unary_unary("/binnacle.retriever.v1.RetrieverService/SearchChunks")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await method(b"\x0a\x02\xff\xfe")
    assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL)
    assert await retriever.texts("flour") == [BREAD]


@pytest.mark.parametrize(
    "query",
    ["\x00", '"', "' OR 1=1 --", "(((", "a AND NOT", "👩\u200d🚀", "\u202e", "*:*", "\ufffe", "é" * 8_192, "^2~"],
)
async def test_odd_queries_are_queries(retriever: Retriever, query: str) -> None:
    """Whatever a person types is looked for, never interpreted."""
    await retriever.search(query)


async def test_an_expired_deadline_is_a_deadline_and_no_more(retriever: Retriever) -> None:
    """A call whose time is over fails as such; the service goes on."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await retriever.stub.SearchChunks(rpc.SearchChunksRequest(query="bread"), timeout=-1.0)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await retriever.texts("flour") == [BREAD]
