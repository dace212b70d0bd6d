"""The reranker on a text-embeddings-inference node keeps its port's contract, against the contract server."""

from collections.abc import AsyncIterator

import pytest

from servicekit.adapters.registry import open_reranker
from servicekit.errors import BackendUnavailable, InvalidRequest, Overloaded
from servicekit.ports.reranker import Reranker
from servicekit.testing.conformance.reranker import QUERY, TEXTS, RerankerConformance, candidates
from servicekit.testing.tei_server.dials import Dials, Fault
from servicekit.testing.tei_server.server import TeiServer, open_tei_server


@pytest.fixture
async def server() -> AsyncIterator[TeiServer]:
    """A node that serves a reranker and takes eight texts at once."""
    async with open_tei_server(Dials(model="contract/cross", kind="reranker", max_client_batch_size=8)) as running:
        yield running


@pytest.fixture
async def reranker(server: TeiServer) -> AsyncIterator[Reranker]:
    """A reranker on it."""
    async with open_reranker(f"{server.url.replace('http', 'tei')}?timeout_ms=5000") as opened:
        yield opened


class TestTeiReranker(RerankerConformance):
    """The suite against `tei://`."""


async def test_the_node_names_the_model(reranker: Reranker) -> None:
    """The id is the node's model with the begin of its revision."""
    await reranker.rerank(QUERY, candidates(*TEXTS))
    assert reranker.id == "contract/cross@000000000000"
    assert not reranker.wants_vectors


async def test_a_batch_is_what_the_node_takes(reranker: Reranker, server: TeiServer) -> None:
    """Twenty texts go in three requests, cut by the node where they are long."""
    await reranker.rerank(QUERY, candidates(*["word " * 2_000] * 20))
    assert [len(body["texts"]) for body in server.bodies] == [8, 8, 4]
    assert all(body["truncate"] for body in server.bodies)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.OVERLOADED, Overloaded),
        (Fault.BACKEND, BackendUnavailable),
        (Fault.TOKENIZER, BackendUnavailable),
        (Fault.DROP, BackendUnavailable),
        (Fault.GARBAGE, BackendUnavailable),
        (Fault.TOO_FEW, BackendUnavailable),
    ],
)
async def test_a_fault_is_an_error_that_the_search_goes_on_from(
    reranker: Reranker, server: TeiServer, fault: Fault, error: type[Exception]
) -> None:
    """Each way in which a node fails is one of the port's errors, and the next call works."""
    server.turn(fault=fault)
    with pytest.raises(error):
        await reranker.rerank(QUERY, candidates(*TEXTS))
    server.turn(fault=Fault.NONE)
    assert len(await reranker.rerank(QUERY, candidates(*TEXTS))) == len(TEXTS)


async def test_a_node_that_hangs_is_waited_for_within_bounds(server: TeiServer) -> None:
    """The bound is the URL's."""
    async with open_reranker(f"{server.url.replace('http', 'tei')}?timeout_ms=200") as reranker:
        server.turn(fault=Fault.HANG)
        with pytest.raises(BackendUnavailable) as caught:
            await reranker.rerank(QUERY, candidates(*TEXTS))
    assert caught.value.reason in {"RERANKER_TIMEOUT", "ENGINE_TIMEOUT"}


async def test_a_node_that_is_away_keeps_nobody_from_starting() -> None:
    """Opening sends nothing; ranking and pinging say that nobody is there."""
    async with open_reranker("tei://127.0.0.1:1") as reranker:
        for call in (reranker.ping(), reranker.rerank(QUERY, candidates(*TEXTS))):
            with pytest.raises(BackendUnavailable):
                await call


async def test_a_node_with_another_kind_of_model_is_named(server: TeiServer) -> None:
    """An embedding model cannot rank; the error says what the node serves."""
    server.turn(kind="embedding")
    async with open_reranker(server.url.replace("http", "tei")) as reranker:
        with pytest.raises(BackendUnavailable, match="contract/cross") as caught:
            await reranker.rerank(QUERY, candidates(*TEXTS))
    assert caught.value.reason == "NO_RERANKER_MODEL"


@pytest.mark.parametrize("options", ["?batch=0", "?timeout_ms=soon", "?colour=red"])
async def test_a_url_that_cannot_be_followed_is_refused(options: str) -> None:
    """Options are known by name and bounded."""
    with pytest.raises(InvalidRequest):
        async with open_reranker(f"tei://127.0.0.1:1{options}"):
            pass
