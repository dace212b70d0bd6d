"""Packs question, chunks and history into a model's context window, counted by the model's own tokenizer.

Called by `preparing.py` for each engine of the chain, since each has its own window and tokenizer.

The question, the prompt's own texts and system messages of the history always go in. The rest goes in by its worth
(`context/worth.py`) as far as there is room (`context/selection.py`); in the prompt, chunks stand in the order of the
ranking, messages in that of the conversation. Text that another chunk repeats goes in once (`context/repeats.py`).

How many tokens a piece has is first estimated, and the estimates are put right by what the tokenizer counts of a whole
prompt: none is asked where the number of bytes settles it, one count is enough where all goes in, and two or three are
where not. What is sent has been counted: it never exceeds the window, however wrong the estimates are.
"""

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from servicekit.domain.chunk import ScoredChunk
from servicekit.domain.generation import ModelInfo
from servicekit.domain.prompt import ContextChunk, Message, Role
from servicekit.errors import ContextWindowExceeded
from services.generator.context.repeats import holders, without_overlap
from services.generator.context.selection import Choice, Selection
from services.generator.context.token_counts import TokenCounts
from services.generator.context.worth import by_worth
from services.generator.prompt_template import PromptTemplate

# What a chat format may add: to the whole (some bring a system message of their own), and around each message.
_FORMAT_TOKENS = 256
_TOKENS_PER_MESSAGE = 16
# An estimate in place of a count is trusted to this share of the room: whole kinds of text have a fifth more.
_ESTIMATE_TRUST = 0.8
_MIN_OUTPUT_TOKENS = 16
# A prompt of more characters for each token of the room is not counted as a whole: it does not fit.
_HOPELESS_CHARS = 8
# Room left by a wrong estimate is filled up where it is more than this share.
_SLACK = 0.06
_MAX_FILLS = 2
_MAX_COUNTS = 12


@dataclass(frozen=True, slots=True)
class Prompt:
    """What may go into the window."""

    question: str
    chunks: Sequence[ScoredChunk]
    history: Sequence[Message]


@dataclass(frozen=True, slots=True)
class Packed:
    """What goes in: messages, the chunks under their numbers, and the tokens of it all.

    `exact` says that `input_tokens` were counted by the model's tokenizer; else they are more than there are. Every
    chunk that was given is among `context`, `dropped_chunks` (no room) or `duplicate_chunks` (one in `context` says
    the same); of `shortened_chunks` in `context` only the first sentences went in.
    """

    messages: tuple[Message, ...]
    context: tuple[ContextChunk, ...]
    input_tokens: int
    dropped_chunks: int
    dropped_messages: int
    duplicate_chunks: int = 0
    shortened_chunks: int = 0
    exact: bool = False


async def pack(
    prompt: Prompt, template: PromptTemplate, *, info: ModelInfo, output_tokens: int, counts: TokenCounts
) -> Packed:
    """As much as fits beside the room for the answer, which is kept free first.

    Raises:
        ContextWindowExceeded: the question and the instructions alone do not fit.
        BackendUnavailable, BackendTimeout: the tokenizer could not be asked.
    """
    room = min(info.max_input_tokens, info.max_total_tokens - max(output_tokens, _MIN_OUTPUT_TOKENS))
    held = holders(prompt.chunks)
    everything = _render(prompt, template, _all(prompt, held))
    most = _at_most(everything.messages, room)
    if most <= room:
        return replace(everything, input_tokens=most)
    hopeless = sum(len(message.content) for message in everything.messages) > _HOPELESS_CHARS * room
    if not hopeless:
        everything = await _counted(everything, counts, info)
        if everything.input_tokens <= room:
            return everything
    search = _Search(prompt, template, held, room=room, weigh=counts.weigh)
    if not hopeless:
        search.learn(search.everything, everything)
    while (selection := search.next()) is not None:
        search.learn(selection, await _counted(_render(prompt, template, selection), counts, info))
    if search.best is None:
        raise _exceeded(prompt, info, room=room, tokens=search.tokens, output_tokens=output_tokens)
    return search.best


async def _counted(draft: Packed, counts: TokenCounts, info: ModelInfo) -> Packed:
    counted = await counts.count(draft.messages, info=info)
    tokens = math.ceil(counted.tokens / _ESTIMATE_TRUST) if counted.estimated else counted.tokens
    return replace(draft, input_tokens=tokens, exact=not counted.estimated)


class _Search:
    """Looks for the most that fits, each count telling how many tokens a unit of weight has."""

    def __init__(
        self,
        prompt: Prompt,
        template: PromptTemplate,
        held: Mapping[int, tuple[int, ...]],
        *,
        room: int,
        weigh: Callable[[str], float],
    ) -> None:
        pieces = by_worth(prompt.chunks, prompt.history, weigh=weigh)
        base = _render(prompt, template, Selection())
        self.best: Packed | None = None
        self.tokens = 0
        self._choice = Choice(prompt.chunks, pieces, held, weigh)
        self.everything = self._choice.select(math.inf)
        self._base_weight = sum(weigh(message.content) + _TOKENS_PER_MESSAGE for message in base.messages)
        self._room = room
        self._scale = 1.0
        self._caution = 1.01
        self._counts = 0
        self._tried: list[Selection] = []
        self._fills = 0
        self._next: Selection | None = self._fitting()

    def next(self) -> Selection | None:
        """What is to be counted next, None once the search is over."""
        return self._next

    def learn(self, selection: Selection, packed: Packed) -> None:
        """Take in what a selection counted."""
        tokens = self.tokens = packed.input_tokens
        self._counts += 1
        self._tried.append(selection)
        measured = tokens / (self._base_weight + selection.weight)
        if tokens <= self._room:
            if self.best is None or tokens > self.best.input_tokens:
                self.best = packed
            done = selection == self.everything or self._room - tokens <= _SLACK * self._room
            self._scale = measured
        else:
            done = not selection.chunks and not selection.messages
            self._scale = max(measured, self._scale) * self._caution
            self._caution *= 1.05
        self._fills += self.best is not None
        self._next = None if done or self._fills > _MAX_FILLS else self._untried()

    def _untried(self) -> Selection | None:
        selection = self._fitting()
        if selection not in self._tried and self._counts < _MAX_COUNTS:
            return selection
        return None if self.best is not None else Selection()

    def _fitting(self) -> Selection:
        return self._choice.select(max(0.0, self._room / self._scale - self._base_weight))


def _all(prompt: Prompt, held: Mapping[int, tuple[int, ...]]) -> Selection:
    return Selection(
        chunks=frozenset(index for index in range(len(prompt.chunks)) if index not in held),
        messages=frozenset(range(len(prompt.history))),
        repeated=frozenset(held),
    )


def _render(prompt: Prompt, template: PromptTemplate, selection: Selection) -> Packed:
    context: list[ContextChunk] = []
    for index, scored in enumerate(prompt.chunks):
        if index in selection.chunks:
            kept = replace(scored, chunk=selection.shortened.get(index, scored.chunk))
            before = context[-1].scored.chunk if context else None
            context.append(ContextChunk(len(context) + 1, without_overlap(kept, before)))
    history = [
        message
        for index, message in enumerate(prompt.history)
        if index in selection.messages or message.role is Role.SYSTEM
    ]
    return Packed(
        template.messages(prompt.question, context, history),
        tuple(context),
        input_tokens=0,
        dropped_chunks=len(prompt.chunks) - len(context) - len(selection.repeated),
        dropped_messages=len(prompt.history) - len(history),
        duplicate_chunks=len(selection.repeated),
        shortened_chunks=len(selection.shortened),
    )


def _at_most(messages: Sequence[Message], room: int) -> int:
    """More tokens than any tokenizer makes of these: bytes, after the normalization that lengthens texts most.

    Not pursued beyond the room.
    """
    tokens = _FORMAT_TOKENS + _TOKENS_PER_MESSAGE * len(messages)
    if tokens + sum(len(message.content) for message in messages) > room:
        return room + 1
    for message in messages:
        text = message.content
        size = len(text.encode("utf-8", "replace"))
        if not text.isascii():
            size = max(size, len(unicodedata.normalize("NFKC", text).encode("utf-8", "replace")))
        tokens += size
    return tokens


def _exceeded(prompt: Prompt, info: ModelInfo, *, room: int, tokens: int, output_tokens: int) -> ContextWindowExceeded:
    instructions = sum(message.role is Role.SYSTEM for message in prompt.history)
    beside = f" and {instructions} system message(s) of the history" if instructions else ""
    return ContextWindowExceeded(
        f"question must fit into the {max(room, 0)} tokens that {info.model} leaves beside {output_tokens} of output; "
        f"with its instructions{beside} it has {tokens}: shorten it, or lower sampling.max_output_tokens",
        field="question",
    )
