"""What an answer was made from stays readable after an update, and a retraction names the answers it concerns."""

import asyncio

import pytest

from binnacle.retriever.v1 import retriever_service_pb2 as retriever
from binnacle.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub
from binnacle_client.answers import AffectedAnswers, Answer, Citation, DocumentInput
from binnacle_client.client import Binnacle, open_client
from servicekit.rpc.client import open_channel
from tests.e2e.conftest import RunningStack

_NAME = "anemometer"
_OLD = "The anemometer on the foremast is greased with lanolin every ninth day."
_NEW = "The anemometer on the foremast is greased with tallow every tenth day."
_QUESTION = "What is the anemometer on the foremast greased with?"
_STORED_WITHIN_S = 60.0


async def _answer_while(binnacle: Binnacle, text: str) -> tuple[Answer, Citation]:
    """An answer that was given while this was the document's text, and its citation of it."""
    await binnacle.index([DocumentInput(document_id=_NAME, content=text.encode())])
    answer = await binnacle.ask(_QUESTION)
    (citation,) = [one for one in answer.citations if one.document_id == _NAME]
    return answer, citation


async def _text_of(stack: RunningStack, citation: Citation) -> str:
    connection = stack.connection
    async with open_channel(
        connection.target("retriever"), audience="retriever", api_key=connection.api_key
    ) as channel:
        request = retriever.BatchGetChunksRequest(content_hashes=[citation.content_hash])
        response: retriever.BatchGetChunksResponse = await RetrieverServiceStub(channel).BatchGetChunks(request)
    return response.chunks[0].chunk.text


async def _affected(binnacle: Binnacle, count: int, *, revision: int = 0) -> AffectedAnswers:
    """The answers, as soon as so many are stored."""
    async with asyncio.timeout(_STORED_WITHIN_S):
        while (found := await binnacle.affected_answers(_NAME, revision=revision)).total < count:
            await asyncio.sleep(0.2)
    return found


@pytest.mark.timeout(300)
async def test_citations_outlive_updates_and_a_retraction_names_them(stack: RunningStack) -> None:
    """Each citation pins its revision and resolves to the very text; after retraction no answer cites the document."""
    async with open_client(stack.connection) as binnacle:
        (first, old), (second, new) = await _answer_while(binnacle, _OLD), await _answer_while(binnacle, _NEW)
        assert (old.revision, new.revision) == (1, 2)
        assert [await _text_of(stack, one) for one in (old, new)] == [_OLD, _NEW]
        found = await _affected(binnacle, 2)
        assert [(one.request_id, one.revisions, one.content_hashes) for one in found.answers] == [
            (second.request_id, (2,), (new.content_hash,)),
            (first.request_id, (1,), (old.content_hash,)),
        ]
        assert [one.request_id for one in (await _affected(binnacle, 1, revision=1)).answers] == [first.request_id]

        (told,) = stack.binnacle_json("retract", _NAME, "--reason", "wrong grease")
        assert (told["revision"], told["cited_by"], len(told["answers"])) == (2, 2, 2)
        assert _NAME not in {one.document_id for one in (await binnacle.ask(_QUESTION)).citations}
        assert await _text_of(stack, old) == _OLD
        listed = {one.document_id: one async for one in binnacle.documents(include_retracted=True)}
        assert listed[_NAME].retract_time is not None
        assert _NAME not in {one.document_id async for one in binnacle.documents()}
        await binnacle.delete(_NAME)
        assert await _text_of(stack, old) == ""
