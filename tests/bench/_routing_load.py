"""The arrivals of the routing benchmark: bursts, skewed lengths, conversations that share their beginnings.

Pure, seeded; the same for every policy.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

_SYSTEMS = 12
_SYSTEM_TOKENS = (300, 0.6)
_QUESTION_TOKENS = (250, 0.9)
_ANSWER_TOKENS = (60, 0.6)
_MAX_PROMPT_TOKENS = 3_500
_MAX_ANSWER_TOKENS = 300
_LIVE_CONVERSATIONS = 60
_FOLLOW_UP_SHARE = 0.5
_BURST_EVERY_S = 12.0
_BURST_S = 2.0
_BURST_FACTOR = 2.5


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request; a word of `prompt` is a token."""

    at_s: float
    tenant: str
    prompt: str
    input_tokens: int
    output_tokens: int


def arrivals(*, per_s: float, seconds: float, seed: int) -> Sequence[Arrival]:
    """Poisson arrivals, 2.5 times as many for 2 s of every 12; the mean over all is `per_s`."""
    chance = random.Random(seed)
    base = per_s / (1 + (_BURST_FACTOR - 1) * _BURST_S / _BURST_EVERY_S)
    systems = [_words(chance, _length(chance, _SYSTEM_TOKENS, 1_200)) for _ in range(_SYSTEMS)]
    conversations: list[list[str]] = []
    made, at_s = [], 0.0
    while True:
        at_s += chance.expovariate(base * _BURST_FACTOR)
        if at_s >= seconds:
            return made
        in_burst = at_s % _BURST_EVERY_S > _BURST_EVERY_S - _BURST_S
        if not in_burst and chance.random() > 1 / _BURST_FACTOR:
            continue  # thinning: Lewis, Shedler (1979)
        conversation = _turn(chance, systems, conversations)
        output_tokens = _length(chance, _ANSWER_TOKENS, _MAX_ANSWER_TOKENS)
        made.append(
            Arrival(
                at_s, f"tenant-{chance.randrange(5)}", " ".join(conversation), len(conversation), max(2, output_tokens)
            )
        )
        conversation.extend(_words(chance, output_tokens))


def _turn(chance: random.Random, systems: Sequence[list[str]], conversations: list[list[str]]) -> list[str]:
    """A new question of a conversation, or of a new one; popular system prompts come more often (Zipf)."""
    question = _words(chance, _length(chance, _QUESTION_TOKENS, 2_000))
    if conversations and chance.random() < _FOLLOW_UP_SHARE:
        conversation = chance.choice(conversations)
        if len(conversation) + len(question) <= _MAX_PROMPT_TOKENS:
            conversation.extend(question)
            return conversation
    weights = [1 / (rank + 1) for rank in range(len(systems))]
    conversation = [*chance.choices(systems, weights)[0], *question]
    conversations.append(conversation)
    del conversations[:-_LIVE_CONVERSATIONS]
    return conversation


def _length(chance: random.Random, shape: tuple[float, float], most: int) -> int:
    """Lognormal by median and sigma."""
    median, sigma = shape
    return max(8, min(most, int(chance.lognormvariate(math.log(median), sigma))))


def _words(chance: random.Random, count: int) -> list[str]:
    """Three letters each, so that a token is four characters."""
    return ["".join(chance.choices("abcdefghijklmnop", k=3)) for _ in range(count)]
