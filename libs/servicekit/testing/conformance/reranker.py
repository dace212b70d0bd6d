"""What every reranker must do. Inherit it in a test class that has a `reranker` fixture.

Run by `tests/contract/test_reranker_*.py`.
"""

import asyncio
import math

from servicekit.adapters.memory.embedder import embed_words
from servicekit.ports.reranker import Candidate, Reranker

QUERY = "when does a consumer commit its offset"
TEXTS = (
    "Bread is made of flour, water, salt and yeast.",
    "A consumer commits its offset after the work is done.",
    "The tide follows the moon.",
    "",
    "日本語のテキスト and a 👩\u200d🚀 in one line",
    "word " * 3_000,
)


def candidates(*texts: str, score: float = 0.5) -> list[Candidate]:
    """Candidates of equal score, with vectors."""
    return [Candidate(text, score, embed_words(text)) for text in texts]


class RerankerConformance:
    """Behaviour that the search relies on."""

    async def test_a_ping_returns(self, reranker: Reranker) -> None:
        """A reranker that is open answers its ping."""
        await reranker.ping()

    async def test_it_names_itself(self, reranker: Reranker) -> None:
        """Once it has ranked, model and version are stated."""
        await reranker.rerank(QUERY, candidates(*TEXTS))
        assert "@" in reranker.id

    async def test_each_candidate_has_a_finite_score_in_its_place(self, reranker: Reranker) -> None:
        """Whatever the text, its score is a number, and the text that shares the query's words has the highest."""
        scores = await reranker.rerank(QUERY, candidates(*TEXTS))
        assert len(scores) == len(TEXTS)
        assert all(math.isfinite(score) for score in scores)
        assert max(range(len(TEXTS)), key=lambda place: scores[place]) == 1

    async def test_scores_follow_the_candidates_order(self, reranker: Reranker) -> None:
        """The same candidates in another order have the same scores, each its own."""
        forward = await reranker.rerank(QUERY, candidates(*TEXTS[:3]))
        backward = await reranker.rerank(QUERY, candidates(*TEXTS[2::-1]))
        assert all(math.isclose(a, b, abs_tol=0.45) for a, b in zip(forward, reversed(backward), strict=True))
        assert max(range(3), key=lambda place: backward[place]) == 1

    async def test_no_candidates_give_no_scores(self, reranker: Reranker) -> None:
        """Ranking nothing is no error."""
        assert list(await reranker.rerank(QUERY, [])) == []

    async def test_one_candidate_and_many_are_ranked(self, reranker: Reranker) -> None:
        """From one to more than a node takes at once, each has its score."""
        for count in (1, 33, 100):
            texts = [f"the tide number {number}" for number in range(count - 1)] + [TEXTS[1]]
            scores = await reranker.rerank(QUERY, candidates(*texts))
            assert len(scores) == count
            assert scores[-1] == max(scores)

    async def test_vectors_are_not_needed(self, reranker: Reranker) -> None:
        """A candidate without a vector is ranked by its words."""
        scores = await reranker.rerank(QUERY, [Candidate(text, 0.5) for text in TEXTS])
        assert scores[1] == max(scores)

    async def test_odd_queries_are_no_error(self, reranker: Reranker) -> None:
        """One word, signs alone, or a very long query."""
        for query in ("offset", "?!", "\u202e\u0000", "offset " * 1_000):
            assert len(await reranker.rerank(query, candidates(*TEXTS))) == len(TEXTS)

    async def test_calls_at_the_same_time_do_not_mix(self, reranker: Reranker) -> None:
        """Two searches at once have the scores that each would have alone."""
        alone = [list(await reranker.rerank(query, candidates(*TEXTS))) for query in (QUERY, "flour and water")]
        both = await asyncio.gather(
            *(reranker.rerank(query, candidates(*TEXTS)) for query in (QUERY, "flour and water"))
        )
        assert [list(scores) for scores in both] == alone
