"""Builds prompts, and counters that tell how often they were asked, for the tests of packing."""

import asyncio
from collections.abc import Sequence
from string import ascii_lowercase

from servicekit.domain.chunk import Chunk, ScoredChunk
from servicekit.domain.generation import ModelInfo, TokenCount
from servicekit.domain.prompt import Message, Role
from services.generator.context.token_counts import TokenCounts
from services.generator.packing import Packed, Prompt, pack
from services.generator.prompt_template import PromptTemplate
from services.generator.templates import load_prompts

PLAIN = load_prompts(None).get("plain")


class WordTokenizer:
    """A token a word, and three around each message."""

    def __init__(self, *, estimated: bool = False) -> None:
        self.asked = 0
        self._estimated = estimated

    def exact(self, messages: Sequence[Message]) -> int:
        """The count."""
        return sum(len(message.content.split()) + 3 for message in messages)

    async def count(self, messages: Sequence[Message]) -> TokenCount:
        """The count, as an engine gives it."""
        self.asked += 1
        return TokenCount(self.exact(messages), estimated=self._estimated)


def chunk(
    rank: int, text: str, *, score: float = 1.0, document: str = "", start: int = 0, neighbour: bool = False
) -> ScoredChunk:
    """A chunk whose text stands at `start` of its document."""
    inner = Chunk(f"c{rank}", document or f"d{rank}", 1, "", text, start=start, end=start + len(text), ordinal=rank)
    return ScoredChunk(inner, rank, score, neighbour=neighbour)


def words(count: int, name: str) -> str:
    """So many different words, in sentences of ten."""
    return " ".join(f"{name}{spelt(index)}{'.' * (index % 10 == 9)}" for index in range(count))


def spelt(number: int) -> str:
    """The number in letters: estimates take digits for more tokens than a word."""
    return "".join(ascii_lowercase[int(digit)] for digit in str(number))


def text_chunks(*lengths: int) -> list[ScoredChunk]:
    """Chunks of so many words, all different, with equal scores."""
    return [chunk(rank, words(length, f"c{spelt(rank)}x")) for rank, length in enumerate(lengths, start=1)]


def exchange(number: int, question_words: int, answer_words: int) -> list[Message]:
    """A question and its answer."""
    return [
        Message(Role.USER, words(question_words, f"q{spelt(number)}x")),
        Message(Role.ASSISTANT, words(answer_words, f"a{spelt(number)}x")),
    ]


def packed_within(
    prompt: Prompt,
    window: int,
    *,
    output_tokens: int = 16,
    tokenizer: WordTokenizer | None = None,
    template: PromptTemplate = PLAIN,
) -> Packed:
    """The prompt packed for a window, counted in words unless said otherwise."""
    counts = TokenCounts((tokenizer or WordTokenizer()).count)
    info = ModelInfo("m", "", window, window)
    return asyncio.run(pack(prompt, template, info=info, output_tokens=output_tokens, counts=counts))


def kept(packed: Packed) -> list[str]:
    """Ids of the chunks that went in, in their order."""
    return [item.scored.chunk.chunk_id for item in packed.context]
