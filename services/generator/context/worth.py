"""In which order pieces are let into a window: what helps the answer most, for its length, comes first. Pure.

Called by `packing.py`. The worth of a piece, before its length counts:

- a chunk that was found, the p-th best by score: its score's share of the best score, divided by log2(1 + p), as in
  the discounted gain that rankings are measured by. Where scores cannot be shares (one is negative), by place alone;
- a chunk that came along as a neighbour: half of what the found chunk at its place has;
- the k-th newest exchange of the history (what the user said, and all up to what the user said next): 1.5 / k^1.5. So
  the newest comes before the chunks, the second after about two of them, the third after about ten.

A piece longer than 256 tokens is worth its worth divided by the square root of how many times longer it is: it takes
the place of others. No exchange is let in before a newer one. Among equals the earlier comes first.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from servicekit.domain.chunk import ScoredChunk
from servicekit.domain.prompt import Message, Role

_USUAL_TOKENS = 256
_NEWEST_EXCHANGE = 1.5
_NEIGHBOUR = 0.5
# Around a chunk's text and around a message, about.
_CHUNK_TOKENS = 16
_MESSAGE_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk, or an exchange of the history, by place in what was given.

    `weight` is about its tokens, `text_weight` that of a chunk's text alone.
    """

    weight: float
    text_weight: float = 0.0
    chunk: int | None = None
    messages: tuple[int, ...] = ()


def by_worth(
    chunks: Sequence[ScoredChunk], history: Sequence[Message], *, weigh: Callable[[str], float]
) -> tuple[Piece, ...]:
    """The pieces, best first; system messages are none, since they are instructions and always go in."""
    ranked = [*_chunk_pieces(chunks, weigh), *_exchange_pieces(history, weigh)]
    return tuple(piece for _, piece in sorted(ranked, key=lambda one: -one[0]))


def _chunk_pieces(chunks: Sequence[ScoredChunk], weigh: Callable[[str], float]) -> Iterator[tuple[float, Piece]]:
    best_first = sorted(range(len(chunks)), key=lambda index: (-_number(chunks[index].score), index))
    shares = _shares([chunk.score for chunk in chunks])
    place = 0
    for index in best_first:
        scored = chunks[index]
        place += not scored.neighbour
        worth = shares[index] / math.log2(1 + max(1, place)) * (_NEIGHBOUR if scored.neighbour else 1)
        text_weight = weigh(scored.chunk.text)
        weight = text_weight + weigh(scored.chunk.title) + _CHUNK_TOKENS
        yield _for_its_length(worth, weight), Piece(weight, text_weight, chunk=index)


def _exchange_pieces(history: Sequence[Message], weigh: Callable[[str], float]) -> Iterator[tuple[float, Piece]]:
    worth = math.inf
    for age, messages in enumerate(_exchanges(history), start=1):
        weight = sum(weigh(history[index].content) + _MESSAGE_TOKENS for index in messages)
        worth = min(worth, _for_its_length(_NEWEST_EXCHANGE / age**1.5, weight))
        yield worth, Piece(weight, messages=messages)


def _exchanges(history: Sequence[Message]) -> list[tuple[int, ...]]:
    """Places of messages that belong together, newest first: each begins with what the user said."""
    found: list[list[int]] = []
    for index, message in enumerate(history):
        if message.role is Role.SYSTEM:
            continue
        if message.role is Role.USER or not found:
            found.append([])
        found[-1].append(index)
    return [tuple(messages) for messages in reversed(found)]


def _shares(scores: Sequence[float]) -> list[float]:
    best = max(scores, default=0.0)
    if any(not math.isfinite(score) or score < 0 for score in scores) or best <= 0:
        return [1.0] * len(scores)
    return [score / best for score in scores]


def _number(score: float) -> float:
    return -math.inf if math.isnan(score) else score


def _for_its_length(worth: float, weight: float) -> float:
    return worth / math.sqrt(max(weight, _USUAL_TOKENS) / _USUAL_TOKENS)
