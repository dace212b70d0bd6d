"""How long packing a prompt takes beside its tokenizer, how often it asks it, and how much of a window it fills.

Run as `python -m tests.bench.packing --json [--rounds N]`. Texts are those of the Python reference; tokens are counted
by a stand-in, whose own time is taken off, and which disagrees with the estimates.
"""

import argparse
import asyncio
import json
import pydoc_data.topics
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import cycle

from servicekit.domain.chunk import Chunk, ScoredChunk
from servicekit.domain.generation import ModelInfo, TokenCount
from servicekit.domain.prompt import Message, Role
from services.generator.context.token_counts import TokenCounts
from services.generator.packing import Packed, Prompt, pack
from services.generator.templates import load_prompts

OUTPUT_TOKENS = 512
# Name: window, chunks, characters of each, messages of the history, characters of each.
CASES = {
    "usual": (8_192, 10, 1_200, 6, 400),
    "small_window": (4_096, 20, 1_200, 20, 600),
    "large_fits": (128_000, 100, 3_000, 64, 1_500),
    "large_beyond": (128_000, 100, 8_000, 64, 3_000),
}


class StandIn:
    """A tokenizer of its own mind: a token for each word, and for every nine characters."""

    def __init__(self) -> None:
        self.asked = 0
        self.spent_s = 0.0

    async def count(self, messages: Sequence[Message]) -> TokenCount:
        """As an engine counts; its own time is told apart."""
        begin = time.perf_counter()
        self.asked += 1
        tokens = sum(10 + len(one.content.split()) + len(one.content) // 9 for one in messages)
        self.spent_s += time.perf_counter() - begin
        return TokenCount(tokens, estimated=False)


def texts(chars: int) -> Iterator[str]:
    """Pieces of the reference, each different from the others."""
    reference = "\n".join(pydoc_data.topics.topics.values())
    for number, place in enumerate(cycle(range(0, len(reference) - chars, 997))):
        yield f"{number}. {reference[place : place + chars]}"


def make_prompt(case: str, turn: int) -> Prompt:
    """A prompt whose chunks differ from turn to turn, while its history is that of one conversation."""
    _, chunks, chunk_chars, messages, message_chars = CASES[case]
    source = texts(chunk_chars)
    scored = [
        ScoredChunk(Chunk(f"c{rank}", f"d{rank}", 1, "", f"{turn} {next(source)}", title="Reference"), rank, 1 / rank)
        for rank in range(1, chunks + 1)
    ]
    source = texts(message_chars)
    history = [Message(Role.ASSISTANT if place % 2 else Role.USER, next(source)) for place in range(messages)]
    return Prompt("How are slices written?", scored, history)


async def run(case: str, rounds: int) -> dict[str, float]:
    """Milliseconds of a packing without the tokenizer's, what it asked, and how full the window is."""
    window = CASES[case][0]
    info = ModelInfo("bench", "", window, window)
    template = load_prompts(None).get("grounded-answer")
    tokenizer = StandIn()
    counts = TokenCounts(tokenizer.count)
    taken: list[float] = []
    packed: Packed | None = None
    for turn in range(rounds):
        prompt = make_prompt(case, turn)
        spent_s, begin = tokenizer.spent_s, time.perf_counter()
        packed = await pack(prompt, template, info=info, output_tokens=OUTPUT_TOKENS, counts=counts)
        taken.append((time.perf_counter() - begin - tokenizer.spent_s + spent_s) * 1000)
    assert packed is not None
    return {
        "pack_p50_ms": round(statistics.median(taken), 2),
        "pack_p99_ms": round(sorted(taken)[int(len(taken) * 0.99)], 2),
        "counts_per_prompt": tokenizer.asked / rounds,
        "filled": round(packed.input_tokens / (window - OUTPUT_TOKENS), 3),
        "chunks_in": len(packed.context),
    }


def main() -> None:
    """Every case, one JSON object last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON line last (it is printed anyway)")
    parser.add_argument("--rounds", type=int, default=100, help="prompts of each case")
    rounds = parser.parse_args().rounds
    results = {}
    for case, (window, chunks, _, messages, _) in CASES.items():
        told = f"packing {rounds} prompts ({case}): {chunks} chunks and {messages} messages for {window} tokens"
        print(told, file=sys.stderr)
        results[case] = asyncio.run(run(case, rounds))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
