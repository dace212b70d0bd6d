"""Packing keeps the window, drops in a stated order and reports what it dropped."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servicekit.domain.chunk import Chunk, ScoredChunk
from servicekit.domain.generation import ModelInfo, TokenCount
from servicekit.domain.prompt import Message, Role
from servicekit.errors import ContextWindowExceeded
from services.generator.packing import Packed, Prompt, pack
from services.generator.templates import load_prompts

TEMPLATE = load_prompts(None).get("grounded-answer")
PLAIN = load_prompts(None).get("plain")


async def _words(text: str) -> TokenCount:
    return TokenCount(len(text.split()), estimated=False)


def _prompt(chunk_words: list[int], history_words: list[int], question_words: int = 5) -> Prompt:
    chunks = [
        ScoredChunk(Chunk(f"c{rank}", "d", 1, "", "w " * words, title=""), rank, 1.0)
        for rank, words in enumerate(chunk_words, start=1)
    ]
    history = [Message(Role.USER, f"m{index} " + "w " * words) for index, words in enumerate(history_words)]
    return Prompt("q " * question_words, chunks, history)


def _pack(prompt: Prompt, window: int, *, output_tokens: int = 16) -> Packed:
    info = ModelInfo("m", "", window, window)
    return asyncio.run(pack(prompt, PLAIN, info=info, output_tokens=output_tokens, count=_words))


def test_everything_goes_in_where_it_fits() -> None:
    """With room enough nothing is dropped and chunks keep their order."""
    packed = _pack(_prompt([10, 10], [3, 3]), 10_000)
    assert [item.scored.chunk.chunk_id for item in packed.context] == ["c1", "c2"]
    assert [item.number for item in packed.context] == [1, 2]
    assert (packed.dropped_chunks, packed.dropped_messages) == (0, 0)
    assert packed.messages[-1].content.startswith("q ")


def test_lowest_ranks_are_dropped_first() -> None:
    """Where chunks do not all fit, the best stay."""
    packed = _pack(_prompt([50, 50, 50, 50], []), 160)
    assert [item.scored.chunk.chunk_id for item in packed.context] == ["c1", "c2"]
    assert packed.dropped_chunks == 2


def test_oldest_history_goes_before_chunks() -> None:
    """Older messages leave first, the newest exchange last."""
    packed = _pack(_prompt([50, 50], [60, 60, 10, 10]), 240)
    assert [message.content[:2] for message in packed.messages[1:-1]] == ["m2", "m3"]
    assert packed.dropped_chunks == 0
    assert packed.dropped_messages == 2


def test_question_alone_too_long_is_refused() -> None:
    """A question that does not fit by itself names the field and the figures."""
    with pytest.raises(ContextWindowExceeded, match="shorten it") as raised:
        _pack(_prompt([5], [], question_words=500), 200)
    assert raised.value.field == "question"


def test_room_for_the_answer_is_kept() -> None:
    """What the answer may need is not given to chunks."""
    assert _pack(_prompt([100], []), 200, output_tokens=16).dropped_chunks == 0
    assert _pack(_prompt([100], []), 200, output_tokens=120).dropped_chunks == 1


async def test_tokenizer_is_not_asked_where_bytes_settle_it() -> None:
    """A prompt with fewer bytes than there is room needs no count."""

    async def never(text: str) -> TokenCount:
        raise AssertionError(text)

    packed = await pack(
        _prompt([3], []), TEMPLATE, info=ModelInfo("m", "", 9_000, 9_000), output_tokens=10, count=never
    )
    assert packed.dropped_chunks == 0


async def test_estimates_are_trusted_less() -> None:
    """An estimated count leaves a margin that an exact one does not."""

    async def estimated(text: str) -> TokenCount:
        return TokenCount(len(text.split()), estimated=True)

    info = ModelInfo("m", "", 10_000, 320)
    prompt = _prompt([270], [])
    exact = await pack(prompt, PLAIN, info=info, output_tokens=16, count=_words)
    guessed = await pack(prompt, PLAIN, info=info, output_tokens=16, count=estimated)
    assert (exact.dropped_chunks, guessed.dropped_chunks) == (0, 1)


@settings(max_examples=200)
@given(
    st.lists(st.integers(1, 200), max_size=12),
    st.lists(st.integers(1, 200), max_size=8),
    st.integers(80, 2_000),
    st.integers(1, 200),
)
def test_packed_prompts_fit(chunks: list[int], history: list[int], window: int, output_tokens: int) -> None:
    """Whatever goes in fits beside the answer, is a prefix by rank, and all else is reported."""
    prompt = _prompt(chunks, history)
    try:
        packed = _pack(prompt, window, output_tokens=output_tokens)
    except ContextWindowExceeded:
        assert window - max(output_tokens, 16) < 60
        return
    counted = asyncio.run(_words("\n".join(message.content for message in packed.messages))).tokens
    assert counted + 8 * len(packed.messages) + output_tokens <= max(window, counted)
    assert packed.input_tokens + max(output_tokens, 16) <= window
    kept = [item.scored.rank for item in packed.context]
    assert kept == list(range(1, len(kept) + 1))
    assert packed.dropped_chunks == len(chunks) - len(kept)
    assert len(packed.messages) - 1 - (1 if kept else 0) == len(history) - packed.dropped_messages
