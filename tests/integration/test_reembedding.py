"""The retriever moves its indexes to a new embedder: over gRPC, on disk, while it is searched, through restarts."""

import asyncio
from pathlib import Path

import grpc
import pytest

from binnacle.retriever.v1 import retriever_service_pb2 as rpc
from servicekit.errors import NotReady
from servicekit.testing.in_process import caller
from tests.integration.retriever_stack import Retriever, as_error, make_document, running_retriever

OLD, NEW = "memory://", "memory://?dimension=128"
OLD_MODEL, NEW_MODEL = "word-hash@1", "word-hash@1-128"
DOCUMENTS = 60
WAIT_S = 30.0


async def fill(retriever: Retriever, *, tenants: tuple[str, ...] = ("acme",)) -> None:
    """Documents of one chunk each."""
    for tenant in tenants:
        with caller(tenant=tenant):
            await retriever.index(
                *(make_document(f"d{n}", f"Ship number {n} lies in harbour {n} of {tenant}.") for n in range(DOCUMENTS))
            )


async def index_of(retriever: Retriever) -> rpc.GetIndexResponse:
    """The caller's index."""
    response: rpc.GetIndexResponse = await retriever.stub.GetIndex(rpc.GetIndexRequest())
    return response


async def until_moved(retriever: Retriever) -> None:
    """Return once the caller's index is of the new model."""
    async with asyncio.timeout(WAIT_S):
        while (await index_of(retriever)).embedding_model != NEW_MODEL:
            await asyncio.sleep(0.05)


async def test_indexes_move_while_they_are_searched(tmp_path: Path) -> None:
    """Every search is answered, by the old model or the new one, and each tenant's model changes once."""
    async with running_retriever(tmp_path, embedder_url=OLD) as retriever:
        await fill(retriever, tenants=("acme", "globex"))
    models: dict[str, list[str]] = {"acme": [], "globex": []}
    async with running_retriever(
        tmp_path, embedder_url=NEW, previous_embedder_url=OLD, reembedding_share=1.0
    ) as retriever:

        async def search(tenant: str) -> None:
            with caller(tenant=tenant):
                while NEW_MODEL not in models[tenant][-3:-2]:
                    answer = await retriever.search("ship number 7 in harbour 7", include_query_vector=True)
                    assert answer.chunks[0].chunk.text == f"Ship number 7 lies in harbour 7 of {tenant}."
                    assert len(answer.query_vector) == {OLD_MODEL: 64, NEW_MODEL: 128}[answer.embedding_model]
                    models[tenant].append(answer.embedding_model)
                state = await index_of(retriever)
                assert (state.embedding_model, state.dimension, state.chunks) == (NEW_MODEL, 128, DOCUMENTS)
                assert not state.HasField("reembedding")

        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(search("acme"), search("globex"))
        with caller():
            (told,) = (await retriever.index(make_document("late", "A boat came late."))).results
            assert told.outcome == rpc.INDEX_OUTCOME_CREATED
    for seen in models.values():
        assert seen == sorted(seen)
    async with running_retriever(tmp_path, embedder_url=NEW) as retriever:
        with caller():
            assert (await retriever.search("boat came late", top_k=1)).chunks[0].chunk.document_id == "late"


async def test_documents_written_meanwhile_are_told_with_the_model_of_their_index(tmp_path: Path) -> None:
    """What is indexed before the switch is of the old model, afterwards of the new one; all is found in the end."""
    async with running_retriever(tmp_path, embedder_url=OLD) as retriever:
        await fill(retriever)
    async with running_retriever(
        tmp_path, embedder_url=NEW, previous_embedder_url=OLD, reembedding_share=0.5
    ) as retriever:
        with caller():
            written = 0
            async with asyncio.timeout(WAIT_S):
                while (await index_of(retriever)).embedding_model != NEW_MODEL or not written:
                    await retriever.index(make_document(f"new{written}", f"Barge {written} carries grain."))
                    written += 1
            await retriever.index(make_document("last", "Barge of the last day."))
            told = [message.embedding_model for _, message in retriever.indexed()]
            assert told == sorted(told)
            assert told[-1] == NEW_MODEL
            state = await index_of(retriever)
            assert state.documents == DOCUMENTS + written + 1
            found = await retriever.search("barge carries grain", top_k=100, mode=rpc.SEARCH_MODE_DENSE)
            assert {f"new{n}" for n in range(written)} <= {one.chunk.document_id for one in found.chunks}


async def test_a_restart_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Stopped again and again in the middle, the move ends, and the index holds everything once."""
    async with running_retriever(tmp_path, embedder_url=OLD) as retriever:
        await fill(retriever)
    for _ in range(3):
        async with running_retriever(
            tmp_path, embedder_url=NEW, previous_embedder_url=OLD, reembedding_share=0.001
        ) as retriever:
            with caller():
                assert (await retriever.search("ship number 7 in harbour 7", top_k=1)).chunks
    async with running_retriever(tmp_path, embedder_url=NEW, previous_embedder_url=OLD) as retriever:
        with caller():
            await until_moved(retriever)
            found = await retriever.search("ship number in harbour", top_k=100, mode=rpc.SEARCH_MODE_DENSE)
            ids = [one.chunk.document_id for one in found.chunks]
            assert sorted(ids) == sorted(f"d{n}" for n in range(DOCUMENTS))


async def test_without_the_previous_embedder_the_tenant_is_told_what_is_missing(tmp_path: Path) -> None:
    """Searches by vector and writes are refused and name the setting; words still find; others are served."""
    async with running_retriever(tmp_path, embedder_url=OLD) as retriever:
        await fill(retriever)
    async with running_retriever(tmp_path, embedder_url=NEW) as retriever:
        with caller():
            for failing in (retriever.search("ship"), retriever.index(make_document("x", "A new ship."))):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await failing
                error = as_error(refused.value)
                assert isinstance(error, NotReady)
                assert error.reason == "EMBEDDING_MODEL_MISMATCH"
                assert "BINNACLE_RETRIEVER__PREVIOUS_EMBEDDER_URL" in error.message
            assert await retriever.texts("harbour", mode=rpc.SEARCH_MODE_SPARSE)
        with caller(tenant="globex"):
            await retriever.index(make_document("x", "A new ship."))
            assert (await retriever.search("ship")).embedding_model == NEW_MODEL
