"""What an answer was made from stays readable after an update, and a retraction names the answers it concerns."""

import time
from typing import Any

from binnacle.retriever.v1 import retriever_service_pb2 as retriever
from binnacle.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub
from servicekit.rpc.client import open_channel
from tests.e2e.conftest import RunningStack

_OLD = "The anemometer on the foremast is greased with lanolin every ninth day."
_NEW = "The anemometer on the foremast is greased with tallow every tenth day."
_QUESTION = "What is the anemometer on the foremast greased with?"


def _citing(stack: RunningStack, text: str, tmp_path: Any) -> dict[str, Any]:
    """The citation of an answer that was given while this was the document's text."""
    file = tmp_path / "anemometer.txt"
    file.write_text(text, encoding="utf-8")
    stack.binnacle_json("ingest", str(file))
    answer = stack.binnacle_json("ask", _QUESTION)[-1]["answer"]
    (citation,) = [one for one in answer["citations"] if one["document_id"] == "anemometer.txt"]
    return {"request_id": answer["request_id"], **citation}


async def _text_of(stack: RunningStack, citation: dict[str, Any]) -> str:
    connection = stack.connection
    async with open_channel(
        connection.target("retriever"), audience="retriever", api_key=connection.api_key
    ) as channel:
        request = retriever.BatchGetChunksRequest(content_hashes=[citation["content_hash"]])
        response = await RetrieverServiceStub(channel).BatchGetChunks(request, timeout=10)
    return response.chunks[0].chunk.text


def _affected(stack: RunningStack, count: int, *options: str) -> list[dict[str, Any]]:
    """The answers, as soon as so many are stored."""
    deadline = time.monotonic() + 20
    while True:
        *answers, last = stack.binnacle_json("affected", "anemometer.txt", *options)
        if last["total"] >= count:
            return answers
        assert time.monotonic() < deadline, f"{last['total']} answers of {count}"
        time.sleep(0.3)


async def test_citations_outlive_updates_and_a_retraction_names_them(stack: RunningStack, tmp_path: Any) -> None:
    """Each citation pins its revision and resolves to the very text; after retraction no answer cites the document."""
    first, second = _citing(stack, _OLD, tmp_path), _citing(stack, _NEW, tmp_path)
    assert (first["revision"], second["revision"]) == (1, 2)
    assert [await _text_of(stack, one) for one in (first, second)] == [_OLD, _NEW]
    answers = _affected(stack, 2)
    assert [(one["request_id"], one["revisions"]) for one in answers] == [
        (second["request_id"], [2]),
        (first["request_id"], [1]),
    ]
    assert [one["content_hashes"] for one in answers] == [[second["content_hash"]], [first["content_hash"]]]
    assert [one["request_id"] for one in _affected(stack, 1, "--revision", "1")] == [first["request_id"]]

    (told,) = stack.binnacle_json("retract", "anemometer.txt", "--reason", "wrong grease")
    assert (told["revision"], told["cited_by"]) == (2, 2)
    answer = stack.binnacle_json("ask", _QUESTION)[-1]["answer"]
    assert "anemometer.txt" not in {one["document_id"] for one in answer["citations"]}
    assert await _text_of(stack, first) == _OLD
    listed = {one["document_id"]: one for one in stack.binnacle_json("documents", "--retracted")}
    assert listed["anemometer.txt"]["retract_time"]
    assert "anemometer.txt" not in {one["document_id"] for one in stack.binnacle_json("documents")}
    stack.binnacle_json("delete", "anemometer.txt")
    assert await _text_of(stack, first) == ""
