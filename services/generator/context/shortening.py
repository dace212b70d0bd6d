"""Shortens a chunk to its first sentences. Pure; called by `selection.py` for the last chunk that goes in."""

from collections.abc import Callable

from servicekit.domain.chunk import Chunk
from servicekit.domain.sentences import split_sentences
from services.generator.context.repeats import part_of

_FEWEST_CHARS = 80
_TRIES = 3


def shorten(chunk: Chunk, *, share: float, weigh: Callable[[str], float]) -> Chunk | None:
    """As many whole sentences from its begin as are this share of its weight, else whole lines; None where none are.

    Less than 80 characters are nothing to answer from.
    """
    chars = int(len(chunk.text) * share)
    if chars < _FEWEST_CHARS:
        return None
    weight = share * weigh(chunk.text)
    for _ in range(_TRIES):
        end = _last_end(chunk.text, min(chars, len(chunk.text) - 1))
        if end < _FEWEST_CHARS:
            return None
        taken = weigh(chunk.text[:end])
        if taken <= weight:
            return part_of(chunk, 0, end)
        chars = int(end * weight / taken)
    return None


def _last_end(text: str, chars: int) -> int:
    """Where the last sentence ends that ends within so many characters, else the last line; 0 if neither does."""
    begun = text[:chars]
    # One character more tells whether the last sentence is over or was cut.
    sentences = split_sentences(text[: chars + 1])
    ends = [sentence.end for sentence in sentences[:-1] if sentence.end <= chars]
    return ends[-1] if ends else len(begun[: begun.rfind("\n") + 1].rstrip())
