"""Packs question, chunks and history into a model's context window, counted by the model's own tokenizer.

Called by `attempting.py` before each attempt, since each model has its own window and tokenizer.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from servicekit.domain.chunk import ScoredChunk
from servicekit.domain.generation import ModelInfo, TokenCount
from servicekit.domain.prompt import ContextChunk, Message
from servicekit.errors import ContextWindowExceeded
from services.generator.templates import PromptTemplate

CountTokens = Callable[[str], Awaitable[TokenCount]]
# What a chat format adds around each message, at most.
_TOKENS_PER_MESSAGE = 8
# An estimate is trusted to this share of the room.
_ESTIMATE_TRUST = 0.9
_NEWEST_MESSAGES = 2
_MIN_OUTPUT_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Prompt:
    """What may go into the window."""

    question: str
    chunks: Sequence[ScoredChunk]
    history: Sequence[Message]


@dataclass(frozen=True, slots=True)
class Packed:
    """What goes in: messages, the chunks under their numbers, and the tokens it all has (an upper bound)."""

    messages: tuple[Message, ...]
    context: tuple[ContextChunk, ...]
    input_tokens: int
    dropped_chunks: int
    dropped_messages: int


async def pack(
    prompt: Prompt, template: PromptTemplate, *, info: ModelInfo, output_tokens: int, count: CountTokens
) -> Packed:
    """Everything if it fits; else the newest exchange, the chunks by rank, then older history, as far as they fit.

    Room for the answer is kept free first. The tokenizer is asked only where the number of bytes, which no
    tokenizer exceeds, does not settle it, and then as often as a bisection takes.

    Raises:
        ContextWindowExceeded: the question alone does not fit.
    """
    room = min(info.max_input_tokens, info.max_total_tokens - max(output_tokens, _MIN_OUTPUT_TOKENS))
    order = _order_of_admission(prompt)
    full = _render(prompt, template, order)
    tokens = await _measure(full.messages, room, count)
    if tokens <= room:
        return _with_tokens(full, tokens)
    low, high = 0, len(order) - 1
    best: Packed | None = None
    while low <= high:
        kept = (low + high) // 2
        candidate = _render(prompt, template, order[:kept])
        tokens = await _measure(candidate.messages, room, count)
        if tokens <= room:
            best = _with_tokens(candidate, tokens)
            low = kept + 1
        else:
            high = kept - 1
    if best is None:
        raise ContextWindowExceeded(
            f"question must fit into the {room} tokens that {info.model} leaves beside {output_tokens} of output; "
            f"with its instructions it has {tokens}: shorten it",
            field="question",
        )
    return best


@dataclass(frozen=True, slots=True)
class _Piece:
    """Something that may be left out: a chunk or a message, by its index."""

    index: int
    is_chunk: bool


def _order_of_admission(prompt: Prompt) -> list[_Piece]:
    newest_first = [_Piece(index, is_chunk=False) for index in reversed(range(len(prompt.history)))]
    chunks = [_Piece(index, is_chunk=True) for index in range(len(prompt.chunks))]
    return [*newest_first[:_NEWEST_MESSAGES], *chunks, *newest_first[_NEWEST_MESSAGES:]]


def _render(prompt: Prompt, template: PromptTemplate, kept: Sequence[_Piece]) -> Packed:
    chunk_indexes = {piece.index for piece in kept if piece.is_chunk}
    message_indexes = {piece.index for piece in kept if not piece.is_chunk}
    scored = [chunk for index, chunk in enumerate(prompt.chunks) if index in chunk_indexes]
    context = tuple(ContextChunk(number, chunk) for number, chunk in enumerate(scored, start=1))
    history = [message for index, message in enumerate(prompt.history) if index in message_indexes]
    return Packed(
        template.messages(prompt.question, context, history),
        context,
        input_tokens=0,
        dropped_chunks=len(prompt.chunks) - len(context),
        dropped_messages=len(prompt.history) - len(history),
    )


async def _measure(messages: Sequence[Message], room: int, count: CountTokens) -> int:
    """The messages' tokens, or their bytes where those already fit."""
    around = _TOKENS_PER_MESSAGE * len(messages)
    text = "\n".join(message.content for message in messages)
    most = len(text.encode()) + around
    if most <= room:
        return most
    counted = await count(text)
    tokens = counted.tokens + around
    return int(tokens / _ESTIMATE_TRUST) if counted.estimated else tokens


def _with_tokens(packed: Packed, tokens: int) -> Packed:
    return Packed(packed.messages, packed.context, tokens, packed.dropped_chunks, packed.dropped_messages)
