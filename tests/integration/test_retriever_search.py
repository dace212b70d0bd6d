"""SearchChunks through real gRPC: every field of the request, every score of the answer, refusals by field name."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from binnacle.retriever.v1 import retriever_service_pb2 as rpc
from servicekit.errors import InvalidRequest
from servicekit.testing.in_process import caller
from servicekit.testing.tei_server.dials import Dials, Fault
from servicekit.testing.tei_server.server import open_tei_server
from tests.integration.retriever_stack import Retriever, as_error, make_document, running_retriever

SECTIONS = "\n\n".join(f"# Part {part}\n\n" + f"Station {part} reports wind and swell. " * 12 for part in range(6))
PROFILES = """
profiles:
  near: {mode: sparse, top_k: 1, neighbours: 1}
  ranked: {fusion: ranked, rerank: true}
"""


@pytest.fixture
async def retriever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Retriever]:
    """A retriever with two profiles, a long document of six parts and a short one."""
    profiles = tmp_path / "profiles.yaml"
    profiles.write_text(PROFILES, encoding="utf-8")
    monkeypatch.setenv("BINNACLE_RETRIEVER__PROFILES_FILE", str(profiles))
    async with running_retriever(tmp_path, vector_store_url="memory://") as running:
        with caller():
            await running.index(
                make_document("stations", SECTIONS, media_type="text/markdown"),
                make_document("bread", "Bread is made of flour, water, salt and yeast."),
            )
            yield running


async def test_a_plain_request_is_the_default_profiles(retriever: Retriever) -> None:
    """Hybrid, at most eight chunks, ranks from 1, three scores each, passages numbered."""
    answer = await retriever.search("station 3 wind")
    assert answer.profile == "default"
    assert (answer.reranker, list(answer.degradations)) == ("", [])
    assert [one.rank for one in answer.chunks] == list(range(1, len(answer.chunks) + 1))
    assert all(one.HasField("fusion_score") and one.passage >= 1 for one in answer.chunks)
    assert not any(one.HasField("rerank_score") or one.HasField("mmr_score") for one in answer.chunks)


async def test_a_profile_fills_in_what_the_request_leaves_open(retriever: Retriever) -> None:
    """The answer names it; a field that is stated wins, 0 too; an unknown name is the default."""
    near = await retriever.search("yeast", profile="near")
    assert near.profile == "near"
    assert [timing.stage for timing in near.timings] == ["sparse", "fuse", "expand"]
    assert len(near.chunks) == 1
    assert "expand" not in [t.stage for t in (await retriever.search("wind", profile="near", neighbours=0)).timings]
    assert (await retriever.search("wind", profile="unheard-of")).profile == "default"
    assert (await retriever.search("wind", profile="ranked")).reranker == "lexical@1"


async def test_neighbours_and_overlap_make_passages(retriever: Retriever) -> None:
    """Neighbours come in addition, marked, in reading order, and say how much they repeat."""
    answer = await retriever.search("station 3", top_k=1, neighbours=1)
    assert [one.neighbour for one in answer.chunks].count(False) == 1
    assert len(answer.chunks) > 1
    ordinals = [one.chunk.ordinal for one in answer.chunks]
    assert ordinals == list(range(ordinals[0], ordinals[0] + len(ordinals)))
    for before, after in zip(answer.chunks, answer.chunks[1:], strict=False):
        overlap = after.overlap_chars
        assert overlap == max(0, before.chunk.span.end - after.chunk.span.start)
        assert before.chunk.text.endswith(after.chunk.text[:overlap])


async def test_reranking_and_diversity_leave_their_scores(retriever: Retriever) -> None:
    """Each stage's score and time is in the answer, `score` is the last one's."""
    answer = await retriever.search("station 3 reports swell", rerank=True, mmr_relevance=0.5, top_k=4)
    assert answer.reranker == "lexical@1"
    assert all(one.HasField("rerank_score") and one.score == one.mmr_score for one in answer.chunks)
    assert [timing.stage for timing in answer.timings][-2:] == ["rerank", "diversify"]


async def test_other_wordings_and_fusion_by_ranks(retriever: Retriever) -> None:
    """Alternative queries bring in what only they find; the fusion of the hybrid can be chosen."""
    sparse = rpc.SEARCH_MODE_SPARSE
    alone = await retriever.search("swell", mode=sparse)
    assert "bread" not in {one.chunk.document_id for one in alone.chunks}
    both = await retriever.search("swell", alternative_queries=["yeast", "flour"], mode=sparse)
    assert "bread" in {one.chunk.document_id for one in both.chunks}
    by_rank = await retriever.search("station 3", fusion=rpc.FUSION_RANKED, top_k=3)
    by_score = await retriever.search("station 3", fusion=rpc.FUSION_RELATIVE_SCORE, top_k=3)
    assert sorted(one.score for one in by_rank.chunks) != sorted(one.score for one in by_score.chunks)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"query": " "}, "query"),
        ({"query": "x" * 8_193}, "query"),
        ({"top_k": 101}, "top_k"),
        ({"top_k": -1}, "top_k"),
        ({"mode": 9}, "mode"),
        ({"fusion": 3}, "fusion"),
        ({"dense_weight": 1.5}, "dense_weight"),
        ({"dense_weight": float("nan")}, "dense_weight"),
        ({"score_floor": float("inf")}, "score_floor"),
        ({"alternative_queries": ["a", "b", "c", "d", "e"]}, "alternative_queries"),
        ({"alternative_queries": ["a", "\n"]}, "alternative_queries[1]"),
        ({"alternative_queries": ["x" * 8_193]}, "alternative_queries[0]"),
        ({"mmr_relevance": -0.1}, "mmr_relevance"),
        ({"mmr_relevance": float("nan")}, "mmr_relevance"),
        ({"neighbours": 4}, "neighbours"),
        ({"neighbours": -1}, "neighbours"),
    ],
)
async def test_a_field_out_of_its_bounds_is_refused_by_name(
    retriever: Retriever, fields: Mapping[str, Any], field: str
) -> None:
    """INVALID_ARGUMENT, with the field's name in the details and in the message."""
    request = rpc.SearchChunksRequest(**{"query": "wind", **fields})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await retriever.stub.SearchChunks(request)
    error = as_error(caught.value)
    assert isinstance(error, InvalidRequest)
    assert error.field == field
    assert field in error.message


async def test_a_reranker_that_fails_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is the search's own and says so; once the node is well again it ranks."""
    async with open_tei_server(Dials(model="contract/cross", kind="reranker")) as node:
        monkeypatch.setenv("BINNACLE_RETRIEVER__RERANKER_URL", node.url.replace("http", "tei"))
        async with running_retriever(tmp_path, vector_store_url="memory://") as retriever:
            with caller():
                await retriever.index(make_document("stations", SECTIONS, media_type="text/markdown"))
                node.turn(fault=Fault.BACKEND)
                without = await retriever.search("wind", rerank=True)
                assert (without.reranker, list(without.degradations)) == ("", ["RERANKER_UNAVAILABLE"])
                assert without.chunks
                node.turn(fault=Fault.NONE)
                ranked = await retriever.search("wind", rerank=True)
                assert (ranked.reranker, list(ranked.degradations)) == ("contract/cross@000000000000", [])
