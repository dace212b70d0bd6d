"""What guarding adds to a streamed answer: time to the first token, time between tokens, CPU of the guardrail.

Run as `python -m tests.bench.guardrail_streaming --json [--rounds N] [--streams N] [--tokens N] [--rate N]`. A source
gives out the tokens of many answers at a fixed rate each, once as they are and once through `CheckStream` of a
guardrail process, alternating; both against the same clock. A token has arrived when its last character has. Answers
are prose of the Python reference with an address and a number in it, against five chunks.
"""

import argparse
import asyncio
import json
import pydoc_data.topics
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from binnacle.guardrail.v1 import guardrail_service_pb2 as rpc
from tests.bench._guardrail_service import Running, running

_TOKEN = re.compile(r"\s?\w{1,6}|\s?[^\w\s]|\s")
_REFERENCE = "\n".join(pydoc_data.topics.topics.values())
_ASIDE = " Write to ada.lovelace@analytical-engine.org or call +44 20 7946 0958, please. "
_CHUNK_CHARS, _CHUNKS = 1_000, 5
_TIMEOUT_S = 300.0


@dataclass
class Streams:
    """What was seen of all streams of one kind in one round, in milliseconds; delays from each token's making."""

    first_ms: list[float] = field(default_factory=list)
    gaps_ms: list[float] = field(default_factory=list)
    delays_ms: list[float] = field(default_factory=list)
    first_held_tokens: list[int] = field(default_factory=list)
    held_tokens: list[int] = field(default_factory=list)
    cpu_s: float = 0.0
    tokens: int = 0


def answer(number: int, *, tokens: int) -> list[str]:
    """Tokens of about the length that models make, with something to redact in the middle."""
    start = number * 7_919 % (len(_REFERENCE) - tokens * 12)
    text = _REFERENCE[start : start + tokens * 12]
    half = len(text) // 3
    return _TOKEN.findall(text[:half] + _ASIDE + text[half:])[:tokens]


class Source:
    """One answer's tokens, each made at its time; `made_s` says when."""

    def __init__(self, tokens: Sequence[str], *, rate: float, start_s: float) -> None:
        self.tokens = tokens
        self.made_s: list[float] = []
        self._rate = rate
        self._start_s = start_s

    async def __aiter__(self) -> AsyncIterator[str]:
        for place, token in enumerate(self.tokens):
            await asyncio.sleep(max(0.0, self._start_s + place / self._rate - time.perf_counter()))
            self.made_s.append(time.perf_counter())
            yield token


async def plain(source: Source) -> list[float]:
    """When each token arrived where nothing stands between."""
    return [time.perf_counter() async for _ in source]


async def guarded(source: Source, guard: Running, number: int, seen: Streams) -> list[float]:
    """When each token's last character was released."""
    stub: Any = guard.stub
    call = stub.CheckStream(_frames(source, number), timeout=_TIMEOUT_S)
    ends = [0]
    for token in source.tokens:
        ends.append(ends[-1] + len(token))
    arrived_s: list[float] = []
    released = 0
    async for response in call:
        if response.HasField("released"):
            released += response.released.source_chars
            now_s = time.perf_counter()
            while len(arrived_s) < len(source.tokens) and ends[len(arrived_s) + 1] <= released:
                arrived_s.append(now_s)
            seen.held_tokens.append(len(source.made_s) - len(arrived_s))
        elif response.HasField("ended"):
            seen.first_held_tokens.append(response.ended.first_held_tokens)
    return arrived_s


async def _frames(source: Source, number: int) -> AsyncIterator[rpc.CheckStreamRequest]:
    chunks = [_REFERENCE[place * _CHUNK_CHARS :][:_CHUNK_CHARS] for place in range(number % 50, number % 50 + _CHUNKS)]
    context = rpc.CheckContext(request_id=f"bench-{number}", conversation_id=f"bench-{number}")
    yield rpc.CheckStreamRequest(start=rpc.CheckStreamStart(context=context, chunk_texts=chunks))
    left = len(source.tokens)
    async for token in source:
        left -= 1
        yield rpc.CheckStreamRequest(text=rpc.StreamedText(text=token, token_count=1, final=left == 0))


async def measure_round(guard: Running | None, *, streams: int, tokens: int, rate: float, number: int) -> Streams:
    """So many answers at once, their starts spread over a token's time."""
    seen = Streams()
    start_s = time.perf_counter() + 0.2
    sources = [
        Source(answer(number + place, tokens=tokens), rate=rate, start_s=start_s + place / rate / streams)
        for place in range(streams)
    ]
    before_s = await guard.cpu_s() if guard else 0.0
    if guard is None:
        arrivals = await asyncio.gather(*(plain(source) for source in sources))
    else:
        arrivals = await asyncio.gather(
            *(guarded(source, guard, number + place, seen) for place, source in enumerate(sources))
        )
        seen.cpu_s = await guard.cpu_s() - before_s
    for source, arrived_s in zip(sources, arrivals, strict=True):
        if len(arrived_s) != len(source.tokens):
            raise RuntimeError(f"{len(arrived_s)} of {len(source.tokens)} tokens came out")
        seen.tokens += len(arrived_s)
        seen.first_ms.append((arrived_s[0] - source.made_s[0]) * 1_000)
        seen.gaps_ms += [(later - sooner) * 1_000 for sooner, later in pairwise(arrived_s)]
        seen.delays_ms += [(out_s - in_s) * 1_000 for in_s, out_s in zip(source.made_s, arrived_s, strict=True)]
    return seen


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of all does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def summary(pairs: Sequence[tuple[Streams, Streams]]) -> dict[str, Any]:
    """Medians over the rounds of what the guarded streams took more than the plain ones of the same round."""

    def added(of: str, share: float) -> float:
        differences = [
            quantile(getattr(with_guard, of), share) - quantile(getattr(without, of), share)
            for without, with_guard in pairs
        ]
        return round(statistics.median(differences), 3)

    guarded_rounds = [with_guard for _, with_guard in pairs]
    return {
        "added_ttft_ms": added("first_ms", 0.5),
        "added_ttft_p99_ms": added("first_ms", 0.99),
        "added_ttft_tokens": statistics.median(one for seen in guarded_rounds for one in seen.first_held_tokens),
        "added_itl_p50_ms": added("gaps_ms", 0.5),
        "added_itl_p99_ms": added("gaps_ms", 0.99),
        "delay_p50_ms": round(statistics.median(quantile(one.delays_ms, 0.5) for one in guarded_rounds), 3),
        "delay_p99_ms": round(statistics.median(quantile(one.delays_ms, 0.99) for one in guarded_rounds), 3),
        "held_tokens_p50": statistics.median(one for seen in guarded_rounds for one in seen.held_tokens),
        "held_tokens_p99": quantile([one for seen in guarded_rounds for one in seen.held_tokens], 0.99),
        "cpu_us_per_token": round(statistics.median(one.cpu_s / one.tokens * 1e6 for one in guarded_rounds), 1),
    }


async def bench(*, rounds: int, streams: int, tokens: int, rate: float) -> dict[str, Any]:
    """Rounds with and without, alternating."""
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder)) as guard:
            await measure_round(guard, streams=streams, tokens=30, rate=rate, number=10_000)
            for number in range(rounds):
                sys.stderr.write(f"round {number + 1} of {rounds}\n")
                first = number * streams
                without = await measure_round(None, streams=streams, tokens=tokens, rate=rate, number=first)
                with_guard = await measure_round(guard, streams=streams, tokens=tokens, rate=rate, number=first)
                pairs.append((without, with_guard))
    asked = {"rounds": rounds, "streams": streams, "tokens": tokens, "tokens_per_s": rate}
    return {**summary(pairs), **asked}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the last line of standard output is one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.guardrail_streaming", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds (default 5)")
    parser.add_argument("--streams", type=int, default=4, help="answers at once (default 4)")
    parser.add_argument("--tokens", type=int, default=200, help="tokens an answer (default 200)")
    parser.add_argument("--rate", type=float, default=50.0, help="tokens a second and answer (default 50)")
    parser.add_argument("--json", action="store_true", help="accepted for the sake of uniformity: JSON is always last")
    options = parser.parse_args(arguments)
    result = asyncio.run(
        bench(rounds=options.rounds, streams=options.streams, tokens=options.tokens, rate=options.rate)
    )
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
