"""The retriever's RPCs through real gRPC: documents in, chunks out, revisions, erasure, events."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from binnacle.events.v1 import document_indexed_pb2 as indexed
from binnacle.events.v1.document_submitted_pb2 import DocumentSubmitted
from binnacle.retriever.v1 import retriever_service_pb2 as rpc
from binnacle.type.v1 import chunk_pb2
from servicekit.events.topics import DOCUMENT_SUBMITTED
from servicekit.ports.event_bus import OutgoingEvent
from servicekit.testing.in_process import caller
from tests.integration.retriever_stack import Retriever, make_document, make_filter, running_retriever

KAFKA = "A topic has partitions.\n\nA consumer commits its offset after the work is done."
BREAD = "Bread is made of flour, water, salt and yeast."


@pytest.fixture
async def retriever(tmp_path: Path) -> AsyncIterator[Retriever]:
    """An empty retriever, called by the tenant `acme`."""
    async with running_retriever(tmp_path) as running:
        with caller():
            yield running


async def test_a_document_is_found_when_indexing_returns(retriever: Retriever) -> None:
    """Text, title, source, place, hash and metadata come back with the chunk, in every mode."""
    response = await retriever.index(
        make_document(
            "kafka", KAFKA, title="Kafka", source_uri="https://example.org/k", metadata={"year": 2024, "lang": "en"}
        ),
        make_document("bread", BREAD),
    )
    assert [result.outcome for result in response.results] == [rpc.INDEX_OUTCOME_CREATED] * 2
    assert [result.revision for result in response.results] == [1, 1]
    for mode in (rpc.SEARCH_MODE_DENSE, rpc.SEARCH_MODE_SPARSE, rpc.SEARCH_MODE_HYBRID, 0):
        answer = await retriever.search("when does a consumer commit its offset", mode=mode, top_k=1)
        chunk = answer.chunks[0].chunk
        assert chunk.text == KAFKA
        assert (chunk.document_id, chunk.title, chunk.revision, chunk.ordinal) == ("kafka", "Kafka", 1, 0)
        assert (chunk.span.start, chunk.span.end) == (0, len(KAFKA))
        assert chunk.content_hash == hashlib.sha256(KAFKA.encode()).hexdigest()
        assert (chunk.metadata["year"].int_value, chunk.metadata["lang"].string_value) == (2024, "en")
        assert answer.corpus_version == response.corpus_version
        assert answer.embedding_model == "word-hash@1"


async def test_scores_and_timings_tell_of_each_stage(retriever: Retriever) -> None:
    """A hybrid answer has both scores and four stages; the query's vector comes when asked for."""
    await retriever.index(make_document("bread", BREAD))
    hybrid = await retriever.search("flour and water", include_query_vector=True)
    assert [timing.stage for timing in hybrid.timings] == ["embed", "dense", "sparse", "fuse"]
    assert hybrid.chunks[0].HasField("dense_score")
    assert hybrid.chunks[0].HasField("sparse_score")
    assert len(hybrid.query_vector) == 64
    sparse = await retriever.search("flour and water", mode=rpc.SEARCH_MODE_SPARSE)
    assert [timing.stage for timing in sparse.timings] == ["sparse", "fuse"]
    assert not sparse.chunks[0].HasField("dense_score")
    assert len(sparse.query_vector) == 0


async def test_filter_floor_and_weight_shape_the_answer(retriever: Retriever) -> None:
    """A filter keeps matching documents, a floor drops weak chunks, top_k bounds."""
    await retriever.index(*(make_document(f"d{n}", f"station {n} reports wind", metadata={"n": n}) for n in range(12)))
    later = make_filter("n", chunk_pb2.OPERATOR_GREATER_EQUAL, [9])
    assert len((await retriever.search("station wind", filter=later)).chunks) == 3
    assert len((await retriever.search("station wind")).chunks) == 8
    assert len((await retriever.search("station wind", top_k=100)).chunks) == 12
    only = make_filter("_document_id", chunk_pb2.OPERATOR_IN, ["d3", "d4"])
    assert {one.chunk.document_id for one in (await retriever.search("wind", filter=only)).chunks} == {"d3", "d4"}
    assert (await retriever.search("station 3", score_floor=1.1)).chunks == []
    assert len((await retriever.search("station 3", score_floor=0.99)).chunks) == 1
    assert (await retriever.search("wind", dense_weight=0.0, top_k=1)).chunks[0].score == pytest.approx(1.0)


async def test_an_unchanged_document_stays_as_it_is(retriever: Retriever) -> None:
    """The same content again makes no revision and no new corpus version; a new title does."""
    first = await retriever.index(make_document("bread", BREAD))
    again = await retriever.index(make_document("bread", BREAD))
    assert again.results[0].outcome == rpc.INDEX_OUTCOME_UNCHANGED
    assert (again.results[0].revision, again.corpus_version) == (1, first.corpus_version)
    renamed = await retriever.index(make_document("bread", BREAD, title="Bread"))
    assert (renamed.results[0].outcome, renamed.results[0].revision) == (rpc.INDEX_OUTCOME_UPDATED, 2)
    assert len((await retriever.search("bread")).chunks) == 1


async def test_a_new_revision_retires_the_old_text_but_keeps_it_readable(retriever: Retriever) -> None:
    """Searches see the new text only; the old one answers to its hash."""
    await retriever.index(make_document("bread", BREAD))
    await retriever.index(make_document("bread", "Bread rises in the oven."))
    assert await retriever.texts("bread") == ["Bread rises in the oven."]
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in (BREAD, "Bread rises in the oven.", "never")]
    stored = (await retriever.stub.BatchGetChunks(rpc.BatchGetChunksRequest(content_hashes=hashes))).chunks
    assert [one.content_hash for one in stored] == hashes
    assert [one.WhichOneof("state") for one in stored] == ["chunk", "chunk", "unknown"]
    assert (stored[0].chunk.text, stored[0].chunk.revision) == (BREAD, 1)


async def test_deletion_erases_and_says_so(retriever: Retriever) -> None:
    """After deletion nothing finds the text, its hash is a tombstone, the document is NOT_FOUND."""
    await retriever.index(make_document("bread", BREAD))
    info = (await retriever.stub.GetDocument(rpc.GetDocumentRequest(document_id="bread"))).document
    assert (info.document_id, info.revision, info.chunk_count) == ("bread", 1, 1)
    await retriever.stub.DeleteDocument(rpc.DeleteDocumentRequest(document_id="bread"))
    assert await retriever.texts("bread flour") == []
    content_hash = hashlib.sha256(BREAD.encode()).hexdigest()
    (stored,) = (await retriever.stub.BatchGetChunks(rpc.BatchGetChunksRequest(content_hashes=[content_hash]))).chunks
    assert stored.WhichOneof("state") == "tombstone"
    assert stored.tombstone.HasField("erase_time")
    for call in (
        retriever.stub.GetDocument(rpc.GetDocumentRequest(document_id="bread")),
        retriever.stub.DeleteDocument(rpc.DeleteDocumentRequest(document_id="bread")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    back = await retriever.index(make_document("bread", BREAD))
    assert (back.results[0].outcome, back.results[0].revision) == (rpc.INDEX_OUTCOME_CREATED, 2)


async def test_markdown_and_html_carry_their_headings(retriever: Retriever) -> None:
    """Chunks name the headings above them, and the title is found in the document where none is given."""
    long = "The needle points north. " * 60
    await retriever.index(
        make_document("md", f"# Compass\n\n## Needle\n\n{long}", media_type="text/markdown"),
        make_document("html", f"<h1>Tides</h1><h2>Moon</h2><p>{'The moon pulls. ' * 80}", media_type="text/html"),
    )
    needle = (await retriever.search("needle points north", top_k=1)).chunks[0].chunk
    assert (needle.title, list(needle.heading_path)[:1]) == ("Compass", ["Compass"])
    moon = (await retriever.search("the moon pulls", top_k=1)).chunks[0].chunk
    assert (moon.title, list(moon.heading_path)[-1]) == ("Tides", "Moon")
    assert "<" not in moon.text


async def test_one_bad_document_does_not_hinder_the_others(retriever: Retriever) -> None:
    """Refused documents say why, in place; the rest is indexed."""
    response = await retriever.index(
        make_document("good", BREAD),
        make_document("binary", b"\x89PNG\x00\x01"),
        make_document("", "no id"),
        make_document("kind", "text", metadata={"n": "text"}),
        make_document("clash", "text", metadata={"n": 3}),
        make_document("markup", "<script>only</script>", media_type="text/html"),
    )
    assert [result.error_reason for result in response.results] == [
        "",
        "BINARY_CONTENT",
        "INVALID_DOCUMENT_ID",
        "",
        "METADATA_KIND_MISMATCH",
        "EMPTY_DOCUMENT",
    ]
    assert response.results[1].error_message.startswith("documents[1].content is binary")
    assert await retriever.texts("flour") != []


async def test_tenants_are_apart(retriever: Retriever) -> None:
    """One tenant's documents do not exist for another, in any RPC."""
    await retriever.index(make_document("bread", BREAD))
    with caller(tenant="other"):
        assert await retriever.texts("flour") == []
        content_hash = hashlib.sha256(BREAD.encode()).hexdigest()
        request = rpc.BatchGetChunksRequest(content_hashes=[content_hash])
        assert (await retriever.stub.BatchGetChunks(request)).chunks[0].WhichOneof("state") == "unknown"
        with pytest.raises(grpc.aio.AioRpcError):
            await retriever.stub.DeleteDocument(rpc.DeleteDocumentRequest(document_id="bread"))
    assert await retriever.texts("flour") == [BREAD]


async def test_each_change_is_told_once(retriever: Retriever) -> None:
    """A revision has one event; finding it unchanged, however often, has another, and so has its deletion."""
    await retriever.index(make_document("bread", BREAD))
    await retriever.index(make_document("bread", BREAD))
    await retriever.index(make_document("bread", BREAD))
    await retriever.index(make_document("bread", KAFKA))
    await retriever.stub.DeleteDocument(rpc.DeleteDocumentRequest(document_id="bread"))
    events = retriever.indexed()
    assert [message.outcome for _, message in events] == [
        indexed.DOCUMENT_OUTCOME_CREATED,
        indexed.DOCUMENT_OUTCOME_UNCHANGED,
        indexed.DOCUMENT_OUTCOME_UNCHANGED,
        indexed.DOCUMENT_OUTCOME_UPDATED,
        indexed.DOCUMENT_OUTCOME_DELETED,
    ]
    ids = [event.id for event, _ in events]
    assert (ids[1] == ids[2], len(set(ids))) == (True, 4)
    assert {(event.key, event.tenant) for event, _ in events} == {("bread", "acme")}
    assert [message.corpus_version for _, message in events] == [1, 1, 1, 2, 3]


async def _finished(retriever: Retriever, operation_id: str) -> rpc.Operation:
    request = rpc.GetOperationRequest(operation_id=operation_id)
    async with asyncio.timeout(10):
        while True:
            operation = (await retriever.stub.GetOperation(request)).operation
            if operation.state == rpc.OPERATION_STATE_DONE:
                return operation
            await asyncio.sleep(0.01)


async def test_a_submitted_document_is_indexed_and_reported(retriever: Retriever) -> None:
    """Submission answers with an operation that ends in the result; the event names it."""
    submit = rpc.SubmitDocumentRequest(document=make_document("bread", BREAD))
    operation = (await retriever.stub.SubmitDocument(submit)).operation
    assert operation.state == rpc.OPERATION_STATE_PENDING
    done = await _finished(retriever, operation.operation_id)
    assert (done.result.outcome, done.result.revision) == (rpc.INDEX_OUTCOME_CREATED, 1)
    assert await retriever.texts("flour") == [BREAD]
    ((_, message),) = retriever.indexed()
    assert message.operation_id == operation.operation_id
    again = (await retriever.stub.SubmitDocument(submit)).operation
    assert again.operation_id == operation.operation_id
    repeated = await _finished(retriever, again.operation_id)
    assert repeated.result.revision == 1


async def test_an_upstream_event_is_indexed_for_its_envelopes_tenant(retriever: Retriever) -> None:
    """The tenant in the message counts for nothing; a document refused there is told of, not retried."""
    good = DocumentSubmitted(tenant_id="forged", document_id="bread", content=BREAD.encode())
    bad = DocumentSubmitted(document_id="broken", content=b"\xff\xc0")
    for name, message in (("good", good), ("bad", bad)):
        event = OutgoingEvent(DOCUMENT_SUBMITTED, message.document_id, name, "acme", message)
        await retriever.bus.publish(event)
    async with asyncio.timeout(10):
        while len(retriever.indexed()) < 2:
            await asyncio.sleep(0.01)
    outcomes = {message.document_id: message for _, message in retriever.indexed()}
    assert outcomes["bread"].outcome == indexed.DOCUMENT_OUTCOME_CREATED
    assert (outcomes["broken"].outcome, outcomes["broken"].error_reason) == (
        indexed.DOCUMENT_OUTCOME_REFUSED,
        "NOT_UTF8",
    )
    assert await retriever.texts("flour") == [BREAD]
    assert retriever.bus.dead_letters == []


async def test_an_event_without_a_document_is_a_dead_letter(retriever: Retriever) -> None:
    """What names no document can be reported on to no one, and goes where an operator finds it."""
    await retriever.bus.publish(OutgoingEvent(DOCUMENT_SUBMITTED, "", "x", "acme", DocumentSubmitted(content=b"x")))
    async with asyncio.timeout(10):
        while not retriever.bus.dead_letters:
            await asyncio.sleep(0.01)
    assert retriever.indexed() == []


async def test_indexing_fails_when_it_cannot_be_told_and_heals_when_repeated(retriever: Retriever) -> None:
    """Without the bus the caller is told to try again; the repeat tells of the very same revision."""
    retriever.bus.fail_next = 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await retriever.index(make_document("bread", BREAD))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    response = await retriever.index(make_document("bread", BREAD))
    assert response.results[0].outcome == rpc.INDEX_OUTCOME_UNCHANGED
    ((_, message),) = retriever.indexed()
    assert message.revision == 1


async def test_concurrent_writers_of_one_document_take_turns(retriever: Retriever) -> None:
    """However many write at once, revisions count up one by one and one text wins."""
    texts = [f"Edition {number} of the pilot book." for number in range(8)]
    responses = await asyncio.gather(*(retriever.index(make_document("pilot", text)) for text in texts))
    assert sorted(response.results[0].revision for response in responses) == list(range(1, 9))
    assert len(await retriever.texts("pilot book edition", top_k=50)) == 1


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    """A new process finds what the last one indexed."""
    with caller():
        async with running_retriever(tmp_path) as first:
            await first.index(make_document("bread", BREAD))
        async with running_retriever(tmp_path) as second:
            assert await second.texts("flour") == [BREAD]
            assert (await second.index(make_document("bread", BREAD))).corpus_version == 1
