"""Retraction, listing and the index's description through real gRPC; what was withdrawn is told of exactly once."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from binnacle.events.v1 import document_indexed_pb2 as indexed
from binnacle.retriever.v1 import retriever_service_pb2 as rpc
from servicekit.errors import BackendUnavailable, BinnacleError, InvalidRequest, NotFound, NotReady
from servicekit.testing.in_process import caller
from tests.integration.retriever_stack import Retriever, as_error, make_document, running_retriever

BREAD = "Bread is made of flour, water, salt and yeast."
HASH = hashlib.sha256(BREAD.encode()).hexdigest()


@pytest.fixture(params=["memory", "lancedb"])
async def retriever(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Retriever]:
    """An empty retriever, called by the tenant `acme`."""
    url = "memory://" if request.param == "memory" else f"lancedb://{tmp_path}/index"
    async with running_retriever(tmp_path, vector_store_url=url) as running:
        with caller():
            yield running


async def _retract(retriever: Retriever, document_id: str, reason: str = "") -> rpc.RetractDocumentResponse:
    request = rpc.RetractDocumentRequest(document_id=document_id, reason=reason)
    return await retriever.stub.RetractDocument(request)


async def _refusal(call: grpc.aio.UnaryUnaryCall) -> BinnacleError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return as_error(caught.value)


async def test_a_retracted_document_is_hidden_at_once_and_stays_readable(retriever: Retriever) -> None:
    """No search finds it; its text answers to its hash, its state says when, and only a list that asks shows it."""
    await retriever.index(make_document("bread", BREAD), make_document("salt", "Salt comes from the sea."))
    response = await _retract(retriever, "bread", "wrong recipe")
    assert (response.revision, response.corpus_version) == (1, 2)
    assert await retriever.texts("bread flour water") == ["Salt comes from the sea."]
    (stored,) = (await retriever.stub.BatchGetChunks(rpc.BatchGetChunksRequest(content_hashes=[HASH]))).chunks
    assert stored.chunk.text == BREAD
    info = (await retriever.stub.GetDocument(rpc.GetDocumentRequest(document_id="bread"))).document
    assert info.HasField("retract_time")
    for include, expected in ((False, ["salt"]), (True, ["bread", "salt"])):
        listed = await retriever.stub.ListDocuments(rpc.ListDocumentsRequest(include_retracted=include))
        assert [one.document_id for one in listed.documents] == expected


async def test_a_retraction_is_told_of_with_its_reason(retriever: Retriever) -> None:
    """The event names the last revision, the reason and the corpus version; the second try is refused."""
    await retriever.index(make_document("bread", BREAD, source_uri="https://example.org/bread"))
    await _retract(retriever, "bread", "wrong recipe")
    event, message = retriever.indexed()[-1]
    assert (message.outcome, message.revision) == (indexed.DOCUMENT_OUTCOME_RETRACTED, 1)
    assert (message.retract_reason, message.corpus_version) == ("wrong recipe", 2)
    assert (event.key, event.tenant, message.source_uri) == ("bread", "acme", "https://example.org/bread")
    again = await _refusal(retriever.stub.RetractDocument(rpc.RetractDocumentRequest(document_id="bread")))
    assert isinstance(again, NotReady)
    assert again.reason == "DOCUMENT_RETRACTED"


async def test_what_could_not_be_told_is_told_by_the_repeat(retriever: Retriever) -> None:
    """The bus fails between the hiding and the telling: the repeat tells the same event, then says it was done."""
    await retriever.index(make_document("bread", BREAD), make_document("salt", "Salt comes from the sea."))
    known = len(retriever.indexed())
    withdraw = {
        "bread": lambda: retriever.stub.RetractDocument(rpc.RetractDocumentRequest(document_id="bread", reason="r")),
        "salt": lambda: retriever.stub.DeleteDocument(rpc.DeleteDocumentRequest(document_id="salt")),
    }
    for document_id, done_before in (("bread", NotReady), ("salt", NotFound)):
        retriever.bus.fail_next = 1
        assert isinstance(await _refusal(withdraw[document_id]()), BackendUnavailable)
        for _ in range(2):
            assert isinstance(await _refusal(withdraw[document_id]()), done_before)
    told = retriever.indexed()[known:]
    assert [message.outcome for _, message in told] == [
        *([indexed.DOCUMENT_OUTCOME_RETRACTED] * 2),
        *([indexed.DOCUMENT_OUTCOME_DELETED] * 2),
    ]
    assert len({event.id for event, _ in told}) == 2
    assert {message.SerializeToString() for event, message in told if event.key == "bread"} == {
        told[0][1].SerializeToString()
    }
    assert await retriever.texts("bread salt") == []


async def test_unknown_and_deleted_documents_cannot_be_retracted(retriever: Retriever) -> None:
    """Both are NOT_FOUND and nothing is told; an overlong reason is refused before anything happens."""
    await retriever.index(make_document("bread", BREAD))
    for document_id in ("never", "bread"):
        if document_id == "bread":
            long = rpc.RetractDocumentRequest(document_id="bread", reason="x" * 513)
            assert isinstance(await _refusal(retriever.stub.RetractDocument(long)), InvalidRequest)
            await retriever.stub.DeleteDocument(rpc.DeleteDocumentRequest(document_id="bread"))
        request = rpc.RetractDocumentRequest(document_id=document_id)
        assert isinstance(await _refusal(retriever.stub.RetractDocument(request)), NotFound)
    outcomes = [message.outcome for _, message in retriever.indexed()]
    assert outcomes == [indexed.DOCUMENT_OUTCOME_CREATED, indexed.DOCUMENT_OUTCOME_DELETED]


async def test_changed_content_brings_a_document_back_and_the_same_does_not(retriever: Retriever) -> None:
    """The very same content is refused as retracted; an edited one is the next revision, and is found."""
    await retriever.index(make_document("bread", BREAD))
    await _retract(retriever, "bread")
    (same,) = (await retriever.index(make_document("bread", BREAD))).results
    assert (same.outcome, same.error_reason) == (rpc.INDEX_OUTCOME_REFUSED, "DOCUMENT_RETRACTED")
    assert await retriever.texts("bread flour") == []
    (edited,) = (await retriever.index(make_document("bread", BREAD + " And time."))).results
    assert (edited.outcome, edited.revision) == (rpc.INDEX_OUTCOME_UPDATED, 2)
    assert await retriever.texts("bread flour") == [BREAD + " And time."]
    assert (await _retract(retriever, "bread")).revision == 2


async def test_a_list_goes_on_from_page_to_page(retriever: Retriever) -> None:
    """Pages join into all documents in the order of their ids; foreign tokens and sizes are refused."""
    names = [f"d{number:02}" for number in range(7)] + ["é", "\U0001f9ed"]
    await retriever.index(*(make_document(name, f"Entry {name} of the log.") for name in names))
    found: list[str] = []
    token = ""
    for _ in range(len(names)):
        request = rpc.ListDocumentsRequest(page_size=4, page_token=token)
        page = await retriever.stub.ListDocuments(request)
        found += [one.document_id for one in page.documents]
        token = page.next_page_token
        if not token:
            break
    assert found == names
    for wrong in (rpc.ListDocumentsRequest(page_token="!"), rpc.ListDocumentsRequest(page_size=501)):
        assert isinstance(await _refusal(retriever.stub.ListDocuments(wrong)), InvalidRequest)


async def test_the_index_says_what_is_in_it(retriever: Retriever) -> None:
    """Version, counts of what can be found, and the model; retracted documents do not count."""
    empty = await retriever.stub.GetIndex(rpc.GetIndexRequest())
    assert (empty.documents, empty.corpus_version, empty.embedding_model) == (0, 0, "")
    await retriever.index(make_document("bread", BREAD), make_document("salt", "Salt comes from the sea."))
    await _retract(retriever, "bread")
    state = await retriever.stub.GetIndex(rpc.GetIndexRequest())
    assert (state.documents, state.chunks, state.corpus_version) == (1, 1, 2)
    assert (state.embedding_model, state.dimension) == ("word-hash@1", 64)


async def test_one_of_two_retractions_at_once_wins(retriever: Retriever) -> None:
    """The other is told that it was done already, and there is one event."""
    await retriever.index(make_document("bread", BREAD))
    outcomes = await asyncio.gather(*(_retract(retriever, "bread") for _ in range(2)), return_exceptions=True)
    assert sorted(isinstance(one, grpc.aio.AioRpcError) for one in outcomes) == [False, True]
    told = [event.id for event, message in retriever.indexed() if message.outcome == indexed.DOCUMENT_OUTCOME_RETRACTED]
    assert len(set(told)) == 1
