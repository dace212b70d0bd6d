"""The search pipeline over a store in memory: each stage leaves its scores, and a stage that fails is told."""

import asyncio
from collections.abc import Sequence

import pytest

from servicekit.adapters.lexical.reranker import LexicalReranker
from servicekit.adapters.memory.embedder import MemoryEmbedder
from servicekit.adapters.memory.vector_store import MemoryVectorStore
from servicekit.domain.fusion import FusionMethod
from servicekit.errors import BackendUnavailable, Overloaded
from servicekit.ports.reranker import Candidate, Reranker
from servicekit.ports.vector_store import SearchMode
from servicekit.testing.documents import make_revision, put
from services.retriever.index.embedders import TenantEmbedders
from services.retriever.search import searching
from services.retriever.search.profiles import read_profiles
from services.retriever.search.query_cache import QueryCache
from services.retriever.search.request import SearchRequest
from services.retriever.search.searching import SearchAnswer, Searcher, words_of

TENANT = "acme"
TIDES = [
    "The moon pulls the sea.",
    "The tide rises twice a day.",
    "Spring tides are the highest.",
    "Neap tides are low.",
]


class ScriptedReranker:
    """Longer texts first, or an error; remembers what it was given."""

    id = "scripted@1"
    wants_vectors = True

    def __init__(self, error: Exception | None = None, *, hang: bool = False) -> None:
        self._error, self._hang = error, hang
        self.given: list[Candidate] = []

    async def rerank(self, query: str, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Lengths."""
        self.given = list(candidates)
        if self._hang:
            await asyncio.Event().wait()
        if self._error:
            raise self._error
        return [float(len(one.text)) for one in candidates]

    async def ping(self) -> None:
        """Always answers."""


class Stand:
    """A searcher with its parts."""

    def __init__(self, reranker: Reranker | None = None) -> None:
        self.store = MemoryVectorStore()
        self.cache = QueryCache()
        self.searcher = Searcher(
            store=self.store,
            embedders=TenantEmbedders(store=self.store, current=MemoryEmbedder()),
            profiles=read_profiles(None),
            cache=self.cache,
            reranker=reranker,
        )

    async def fill(self) -> None:
        """A document of four chunks, and two of one chunk."""
        await put(
            self.store,
            TENANT,
            [
                make_revision("tides", TIDES, title="Tides"),
                make_revision("bread", ["Bread rises twice before it is baked."]),
                make_revision("moon", ["The moon has no sea of water."]),
            ],
        )

    async def ask(self, request: SearchRequest) -> SearchAnswer:
        """Search."""
        return await self.searcher.search(TENANT, request)


@pytest.fixture
async def stand() -> Stand:
    """A filled one without a reranker."""
    made = Stand()
    await made.fill()
    return made


def places(answer: SearchAnswer) -> list[tuple[str, int]]:
    """Document and place of each chunk."""
    return [(one.chunk.document_id, one.chunk.ordinal) for one in answer.chunks]


async def test_a_plain_search_has_the_searchs_scores_alone(stand: Stand) -> None:
    """Without a request for more there are three scores, and no stage beyond the store's."""
    answer = await stand.ask(SearchRequest("when does the tide rise", top_k=3))
    best = next(one for one in answer.chunks if one.chunk.ordinal == 1)
    assert best.score == best.fusion_score
    assert best.dense_score is not None
    assert (best.rerank_score, best.mmr_score, best.neighbour) == (None, None, False)
    assert list(answer.stages_s) == ["embed", "dense", "sparse", "fuse"]
    assert (answer.profile, answer.reranker, answer.degradations) == ("default", "", ())


async def test_the_floor_is_of_the_searchs_score(stand: Stand) -> None:
    """What scores less is left out before anything else looks at it."""
    answer = await stand.ask(SearchRequest("the tide rises", score_floor=0.9))
    assert [one.score >= 0.9 for one in answer.chunks] == [True]
    assert (await stand.ask(SearchRequest("the tide rises", score_floor=1.5, neighbours=2, rerank=True))).chunks == ()


async def test_the_reranker_orders_the_chunks() -> None:
    """Its scores decide, stand in each chunk, and it is named; it judges title and headings with the text."""
    reranker = ScriptedReranker()
    stand = Stand(reranker)
    await stand.fill()
    answer = await stand.ask(SearchRequest("moon sea tide bread", top_k=2, rerank=True))
    assert answer.reranker == "scripted@1"
    assert [one.score for one in answer.chunks] == [one.rerank_score for one in answer.chunks]
    assert len(reranker.given) == 6
    assert all(one.vector is not None for one in reranker.given)
    longest = max(reranker.given, key=lambda one: len(one.text))
    assert words_of(answer.chunks[0].chunk) == longest.text
    assert "rerank" in answer.stages_s


@pytest.mark.parametrize("error", [BackendUnavailable("away"), Overloaded("busy")])
async def test_a_reranker_that_is_away_is_done_without(error: Exception) -> None:
    """The answer is the search's own, and says what it lacks."""
    stand = Stand(ScriptedReranker(error))
    await stand.fill()
    plain = await stand.ask(SearchRequest("moon sea", top_k=3))
    answer = await stand.ask(SearchRequest("moon sea", top_k=3, rerank=True))
    assert places(answer) == places(plain)
    assert (answer.reranker, answer.degradations) == ("", ("RERANKER_UNAVAILABLE",))


async def test_a_reranker_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound passes, the search goes on."""
    monkeypatch.setattr(searching, "MAX_RERANK_S", 0.01)
    stand = Stand(ScriptedReranker(hang=True))
    await stand.fill()
    answer = await stand.ask(SearchRequest("moon sea", rerank=True))
    assert answer.degradations == ("RERANKER_UNAVAILABLE",)
    assert answer.chunks


async def test_where_there_is_no_reranker_the_answer_says_so(stand: Stand) -> None:
    """Asking for one that is not configured is no error."""
    answer = await stand.ask(SearchRequest("moon", rerank=True))
    assert answer.degradations == ("RERANKER_NOT_CONFIGURED",)


async def test_diversity_scores_what_it_chose(stand: Stand) -> None:
    """Marginal relevance is the last score; at 1 the stage does not run."""
    answer = await stand.ask(SearchRequest("tides moon bread", top_k=3, mmr_relevance=0.5))
    assert all(one.mmr_score == one.score for one in answer.chunks)
    assert "diversify" in answer.stages_s
    assert "diversify" not in (await stand.ask(SearchRequest("tides", mmr_relevance=1.0))).stages_s


async def test_neighbours_come_in_addition(stand: Stand) -> None:
    """One chunk is found, those beside it come along in reading order, marked."""
    answer = await stand.ask(SearchRequest("spring tides are highest", top_k=1, neighbours=1))
    assert places(answer) == [("tides", 1), ("tides", 2), ("tides", 3)]
    assert [one.neighbour for one in answer.chunks] == [True, False, True]
    assert [one.rank for one in answer.chunks] == [1, 2, 3]
    assert {one.passage for one in answer.chunks} == {1}
    assert "expand" in answer.stages_s


async def test_every_stage_together() -> None:
    """Reranked, diversified and expanded at once: at most `top_k` are found, all ranked, one score each stage."""
    stand = Stand(LexicalReranker())
    await stand.fill()
    request = SearchRequest(
        "tide", alternative_queries=("moon", "bread rises"), top_k=2, rerank=True, mmr_relevance=0.6, neighbours=3
    )
    answer = await stand.ask(request)
    found = [one for one in answer.chunks if not one.neighbour]
    assert len(found) == 2
    assert all(one.mmr_score is not None and one.rerank_score is not None for one in found)
    assert [one.rank for one in answer.chunks] == list(range(1, len(answer.chunks) + 1))
    assert list(answer.stages_s) == ["embed", "dense", "sparse", "fuse", "rerank", "diversify", "expand"]


async def test_other_wordings_find_what_the_query_does_not(stand: Stand) -> None:
    """Rankings of all the queries are fused, also where only words count."""
    alone = await stand.ask(SearchRequest("moon", mode=SearchMode.SPARSE))
    together = await stand.ask(SearchRequest("moon", alternative_queries=("bread",), mode=SearchMode.SPARSE))
    assert ("bread", 0) not in places(alone)
    assert set(places(together)) == {*places(alone), ("bread", 0)}


async def test_a_words_only_search_embeds_only_when_the_vector_is_wanted(stand: Stand) -> None:
    """No vector is made for nothing; one that is asked for comes back."""
    assert "embed" not in (await stand.ask(SearchRequest("moon", mode=SearchMode.SPARSE))).stages_s
    asked = await stand.ask(SearchRequest("moon", mode=SearchMode.SPARSE, want_vector=True))
    assert asked.vector is not None
    assert len(asked.vector) == 64


async def test_fusion_by_ranks_is_asked_for_by_name(stand: Stand) -> None:
    """First in both rankings scores 1 either way; further down the methods differ."""
    by_score = await stand.ask(SearchRequest("the moon pulls the sea", top_k=6))
    by_rank = await stand.ask(SearchRequest("the moon pulls the sea", top_k=6, fusion=FusionMethod.RANKED))
    assert sorted(one.score for one in by_score.chunks) != sorted(one.score for one in by_rank.chunks)


async def test_a_speculative_search_leaves_no_trace(stand: Stand) -> None:
    """It fills no cache, and reads none: its guard may still forbid the text."""
    await stand.ask(SearchRequest("moon", speculative=True))
    assert (len(stand.cache), stand.cache.misses) == (0, 0)
    await stand.ask(SearchRequest("moon"))
    await stand.ask(SearchRequest("moon", speculative=True))
    await stand.ask(SearchRequest("moon"))
    assert (stand.cache.hits, stand.cache.misses) == (1, 1)


async def test_an_empty_corpus_has_no_chunks() -> None:
    """Every stage copes with nothing."""
    stand = Stand(LexicalReranker())
    answer = await stand.ask(SearchRequest("moon", rerank=True, mmr_relevance=0.5, neighbours=2))
    assert answer.chunks == ()
    assert answer.degradations == ()
