"""The reranker without a model keeps the contract of the reranker port."""

import pytest

from servicekit.adapters.lexical.reranker import LexicalReranker
from servicekit.adapters.registry import open_reranker
from servicekit.errors import InvalidRequest
from servicekit.ports.reranker import Candidate, Reranker
from servicekit.testing.conformance.reranker import RerankerConformance


@pytest.fixture
def reranker() -> Reranker:
    """As `lexical://` opens it."""
    return LexicalReranker()


class TestLexicalReranker(RerankerConformance):
    """The suite against `lexical://`."""


async def test_phrases_of_the_query_lift_a_text(reranker: Reranker) -> None:
    """Between texts of equal score, more of the query's word pairs side by side rank higher, whatever their endings."""
    texts = ("valve of the engine under pressure", "the engine valves are open", "open engine, then a valve")
    scores = await reranker.rerank("open engine valve", [Candidate(text, 0.5) for text in texts])
    assert scores[2] > scores[1] > scores[0]


async def test_nearness_to_the_best_lifts_a_text(reranker: Reranker) -> None:
    """A text that is like those that rank first passes one that is not."""
    near, far = (1.0, 0.0), (0.0, 1.0)
    given = [(1.0, near), (0.9, near), (0.8, near), (0.45, far), (0.4, near), (0.0, far)]
    scores = await reranker.rerank("word", [Candidate("text", score, vector) for score, vector in given])
    assert scores[4] > scores[3]


async def test_the_score_of_the_search_leads(reranker: Reranker) -> None:
    """Far ahead in the search stays ahead: the additions weigh 0.4 together."""
    scores = await reranker.rerank(
        "engine valve", [Candidate("nothing of it", 1.0), Candidate("engine valve", 0.5), Candidate("other", 0.0)]
    )
    assert scores[0] > scores[1] > scores[2]


async def test_the_url_says_nothing_more() -> None:
    """A host or an option is refused by the setting's name."""
    with pytest.raises(InvalidRequest, match="lexical://") as caught:
        async with open_reranker("lexical://host"):
            pass
    assert caught.value.field == "reranker_url"
