"""Sentences that say what their text says but for one swap: another number, name, sign, or the opposite word.

Deterministic; made of BEGIN's knowledge for `_guardrail_groundedness.py`. Supported and swapped ones alike lose a
clause where they have one to lose, so that no supported one need be a copy.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from servicekit.domain.sentences import split_sentences
from tests.bench._guardrail_answers import BEGIN_DOMAINS, Answer, begin

SWAPS = ("number", "name", "negation", "opposite")
_PER_SWAP = 150
_WORDS = range(6, 41)
_NUMBER = re.compile(r"(?<![\w.,])\d{1,4}(?![\w.,]*\d)")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{3,}\b")
_VERB = re.compile(r"\b(is|are|was|were|can|could|has been|have been|will|does|did)\b(?! not)")
_OPPOSITES = (
    ("first", "last"), ("largest", "smallest"), ("before", "after"), ("increased", "decreased"), ("more", "less"),
    ("north", "south"), ("northern", "southern"), ("eastern", "western"), ("highest", "lowest"), ("won", "lost"),
    ("most", "least"), ("early", "late"), ("older", "younger"), ("above", "below"), ("began", "ended"),
    ("male", "female"), ("professional", "amateur"), ("private", "public"), ("high", "low"), ("old", "new"),
    ("always", "never"), ("major", "minor"), ("internal", "external"), ("best", "worst"), ("former", "current"),
)  # fmt: skip
_OPPOSITE = {one: other for pair in _OPPOSITES for one, other in (pair, pair[::-1])}


def swapped(data: Path, swap: str) -> list[Answer]:
    """Sentences of BEGIN's knowledge as they stand, and with this swap, each with its text as the context."""
    draw = random.Random(f"swaps {swap}")
    contexts = sorted({answer.context[0] for domain in BEGIN_DOMAINS for answer in begin(data, domain)})
    names = sorted({name for context in contexts for name in _NAME.findall(context)})
    change = _CHANGES[swap]
    found: list[Answer] = []
    for context in draw.sample(contexts, len(contexts)):
        for sentence in _sentences(context):
            kept = _shortened(sentence)
            other = change(kept, context, names, draw)
            if other and other != kept:
                found += (Answer((context,), kept, unsupported=False, group=context),)
                found += (Answer((context,), other, unsupported=True, group=context),)
                break
        if len(found) >= 2 * _PER_SWAP:
            break
    return found


def _sentences(context: str) -> Iterator[str]:
    for sentence in split_sentences(context):
        if len(sentence.text.split()) in _WORDS:
            yield sentence.text


def _shortened(sentence: str) -> str:
    """Without its last clause, where something is left without it."""
    head, comma, _ = sentence.rstrip(" .").rpartition(", ")
    return f"{head.rstrip()}." if comma and len(head.split()) >= _WORDS.start else sentence


def _number(sentence: str, context: str, names: Sequence[str], draw: random.Random) -> str | None:
    match = _NUMBER.search(sentence)
    if not match:
        return None
    value = int(match.group())
    other = next(new for new in (value + draw.randint(1, 9) for _ in range(50)) if str(new) not in context)
    return f"{sentence[: match.start()]}{other}{sentence[match.end() :]}"


def _name(sentence: str, context: str, names: Sequence[str], draw: random.Random) -> str | None:
    match = _NAME.search(sentence)
    if not match:
        return None
    other = next(name for name in (draw.choice(names) for _ in range(500)) if name not in context)
    return f"{sentence[: match.start()]}{other}{sentence[match.end() :]}"


def _negation(sentence: str, context: str, names: Sequence[str], draw: random.Random) -> str | None:
    if re.search(r"\b(not|no|never|without)\b|n't\b", sentence):
        return re.sub(r"\b(not|never) ", "", sentence, count=1)
    match = _VERB.search(sentence)
    if not match:
        return None
    verb = match.group().split()
    return f"{sentence[: match.start()]}{' '.join([verb[0], 'not', *verb[1:]])}{sentence[match.end() :]}"


def _opposite(sentence: str, context: str, names: Sequence[str], draw: random.Random) -> str | None:
    for match in re.finditer(r"\b[a-z]+\b", sentence):
        if match.group() in _OPPOSITE:
            return f"{sentence[: match.start()]}{_OPPOSITE[match.group()]}{sentence[match.end() :]}"
    return None


_CHANGES: dict[str, Callable[[str, str, Sequence[str], random.Random], str | None]] = {
    "number": _number,
    "name": _name,
    "negation": _negation,
    "opposite": _opposite,
}
