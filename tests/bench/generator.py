"""What the generator adds to the engine behind it: to the first token, between tokens, to memory, and in CPU.

`python -m tests.bench.generator --json`. The engine is the contract server, the generator a process of its own, the
client this process; asked directly and through the generator in turn, figures are medians over the rounds, and of
differences between neighbours. The client is as light as can be (`_generator_clients.py`), yet three processes share
the machine: `cpu_us_per_token` of each and `cores_busy` tell whether it was the machine that bounded a figure, and
`others_busy`, the cores that other work had meanwhile, whether it was quiet enough for one: over 0.2 it was not.

- `added_ttft_p50_ms`: to the first token, one stream at a time, of an engine that answers at once, with five chunks
  that fit the window whatever their tokens are; `ttft.added_if_counted_p50_ms` with twelve, which the engine is asked
  to count first (the contract server is no fast tokenizer).
- `added_itl_p99_ms`: 99th percentile of the time between two tokens at the client, less that of the direct way, with
  `--streams` open at once, each of 50 tokens a second. Tokens that come together have none between them.
- `added_itl_p99_over_relay_ms`: the same against the relay (`_generator_relay.py`), the least that can stand between an
  engine and a gRPC caller: what remains is ours, what the relay adds is what `grpc.aio` costs on this machine.
- `throughput_ratio`: tokens a second of those streams, relative to the direct way.
- `kb_per_stream`: growth of the generator's resident memory by those streams, when they are open for the first time.
- `fewer`: the same with `--fewer` streams, for a machine that is too small for `--streams`.
"""

import argparse
import asyncio
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from tests.bench._generator_clients import FEW_CHUNKS, MANY_CHUNKS, Arrivals, Client, open_clients
from tests.bench._generator_stand import Stand, cpu_s, open_stand

TOKENS_PER_S = 50
_FIRST_TOKENS = 4
_RAMP_S = 1.0
_SETTLE_S = 0.5
_WARM_REQUESTS = 30


@dataclass(frozen=True, slots=True)
class Window:
    """One way's steady state: gaps between tokens, tokens a second, CPU of each process, the generator's memory."""

    itl_p50_ms: float
    itl_p99_ms: float
    tokens_per_s: float
    tokens_per_message: float
    cpu_us_per_token: Mapping[str, float]
    cores_busy: float
    others_busy: float
    rss_kb: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the last line of standard output is one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.generator", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds (default 5)")
    parser.add_argument("--requests", type=int, default=100, help="first tokens a way and round (default 100)")
    parser.add_argument("--streams", type=int, default=200, help="streams at once (default 200)")
    parser.add_argument("--fewer", type=int, default=50, help="streams at once of the lighter load (default 50)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each window (default 6)")
    parser.add_argument("--json", action="store_true", help="accepted for the sake of uniformity: JSON is always last")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="binnacle-bench-") as folder, open_stand(Path(folder)) as stand:
        print(json.dumps(asyncio.run(_bench(stand, options))))
    return 0


async def _bench(stand: Stand, options: argparse.Namespace) -> dict[str, Any]:
    numbers = count()
    async with open_clients(
        engine_port=stand.engine_port, relay=stand.relay_target, target=stand.generator_target, api_key=stand.api_key
    ) as clients:
        first = await _first_tokens(stand, clients, numbers, options)
        idle_kb = _rss_kb(stand.generator)
        many = await _load(stand, clients, numbers, streams=options.streams, options=options)
        fewer = await _load(stand, clients, numbers, streams=options.fewer, options=options)
    kb_per_stream = (many["ours"][0].rss_kb - idle_kb) / options.streams
    summary = _summary(many)
    return {
        "added_ttft_p50_ms": first["added_p50_ms"],
        "added_itl_p99_ms": summary["added_itl_p99_ms"],
        "added_itl_p99_over_relay_ms": summary["added_itl_p99_over_relay_ms"],
        "throughput_ratio": summary["throughput_ratio"],
        "kb_per_stream": round(kb_per_stream, 1),
        "ttft": first,
        "many": {"streams": options.streams, **summary},
        "fewer": {"streams": options.fewer, **_summary(fewer)},
        "idle_rss_mb": round(idle_kb / 1024, 1),
        "cores": os.cpu_count(),
        "rounds": options.rounds,
    }


async def _first_tokens(
    stand: Stand, clients: Mapping[str, Client], numbers: Iterator[int], options: argparse.Namespace
) -> dict[str, float]:
    """One stream at a time, each way in turn, so that both see the same machine."""
    stand.turn(output_tokens=0, tokens_per_s=0.0, first_token_s=0.0)
    for _ in range(_WARM_REQUESTS):
        for client in clients.values():
            await client.stream(next(numbers), _FIRST_TOKENS)
    rounds: dict[str, list[float]] = {"direct": [], "relay": [], "ours": [], "added": [], "added_if_counted": []}
    for number in range(1, options.rounds + 1):
        for name, chunks in (("added", FEW_CHUNKS), ("added_if_counted", MANY_CHUNKS)):
            waits = await _waits_ms(clients, numbers, chunks=chunks, requests=options.requests)
            pairs = zip(waits["ours"], waits["direct"], strict=True)
            rounds[name].append(statistics.median(ours - direct for ours, direct in pairs))
            if chunks == FEW_CHUNKS:
                for way, sample in waits.items():
                    rounds[way].append(statistics.median(sample))
        told = ", ".join(f"{name} {values[-1]:.2f} ms" for name, values in rounds.items())
        _tell(f"first token, round {number} of {options.rounds}: {told}")
    return {f"{name}_p50_ms": round(statistics.median(values), 2) for name, values in rounds.items()}


async def _waits_ms(
    clients: Mapping[str, Client], numbers: Iterator[int], *, chunks: int, requests: int
) -> dict[str, list[float]]:
    """From the request to its first token, each way in turn."""
    waits: dict[str, list[float]] = {way: [] for way in clients}
    for _ in range(requests):
        for way, client in clients.items():
            arrivals = await client.stream(next(numbers), _FIRST_TOKENS, chunks=chunks)
            waits[way].append((arrivals.at_s[0] - arrivals.begun_s) * 1e3)
    return waits


async def _load(
    stand: Stand, clients: Mapping[str, Client], numbers: Iterator[int], *, streams: int, options: argparse.Namespace
) -> dict[str, list[Window]]:
    tokens = round((_RAMP_S + 2 * _SETTLE_S + options.seconds) * TOKENS_PER_S)
    stand.turn(output_tokens=tokens, tokens_per_s=float(TOKENS_PER_S))
    windows: dict[str, list[Window]] = {way: [] for way in clients}
    for number in range(1, options.rounds + 1):
        for way, client in clients.items():
            between = stand.relay if way == "relay" else stand.generator
            window = await _window(
                stand, client, numbers, between=between, streams=streams, tokens=tokens, seconds=options.seconds
            )
            windows[way].append(window)
            used = ", ".join(f"{name} {spent:.0f}" for name, spent in window.cpu_us_per_token.items())
            _tell(
                f"{streams} streams, round {number} of {options.rounds}, {way}: {window.tokens_per_s:.0f} tokens/s, "
                f"between tokens p50 {window.itl_p50_ms:.2f} and p99 {window.itl_p99_ms:.2f} ms, "
                f"CPU us a token: {used}; {window.cores_busy:.2f} cores busy, others {window.others_busy:.2f}"
            )
    return windows


async def _window(
    stand: Stand,
    client: Client,
    numbers: Iterator[int],
    *,
    between: psutil.Process,
    streams: int,
    tokens: int,
    seconds: float,
) -> Window:
    """Open the streams over a second, so that their tokens are spread; measure once all are open.

    `between` is the process whose CPU is told as the generator's.
    """

    async def run(place: int) -> Arrivals:
        await asyncio.sleep(_RAMP_S * place / streams)
        return await client.stream(next(numbers), tokens)

    processes = {"engine": stand.engine, "generator": between, "client": psutil.Process()}
    gc.collect()
    gc.disable()
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(run(place)) for place in range(streams)]
            await asyncio.sleep(_RAMP_S + _SETTLE_S)
            begin_s, all_before_s = time.perf_counter(), _machine_s()
            before = {name: cpu_s(process) for name, process in processes.items()}
            await asyncio.sleep(seconds)
            end_s, all_s = time.perf_counter(), _machine_s() - all_before_s
            after = {name: cpu_s(process) for name, process in processes.items()}
            rss_kb = _rss_kb(stand.generator)
    finally:
        gc.enable()
    spent = {name: after[name] - before[name] for name in processes}
    return _measured(
        [task.result() for task in running], begin_s=begin_s, end_s=end_s, spent_s=spent, all_s=all_s, rss_kb=rss_kb
    )


def _measured(
    streams: Sequence[Arrivals],
    *,
    begin_s: float,
    end_s: float,
    spent_s: Mapping[str, float],
    all_s: float,
    rss_kb: float,
) -> Window:
    gaps_ms: list[float] = []
    came = messages = 0
    for stream in streams:
        last_s = None
        for at_s, tokens in zip(stream.at_s, stream.counts, strict=True):
            if begin_s <= at_s < end_s:
                came += tokens
                messages += 1
                if last_s is not None:
                    gaps_ms.append((at_s - last_s) * 1e3)
                    gaps_ms.extend([0.0] * (tokens - 1))
                last_s = at_s
    quantiles = statistics.quantiles(gaps_ms, n=100, method="inclusive")
    return Window(
        itl_p50_ms=quantiles[49],
        itl_p99_ms=quantiles[98],
        tokens_per_s=came / (end_s - begin_s),
        tokens_per_message=came / messages,
        cpu_us_per_token={name: seconds / came * 1e6 for name, seconds in spent_s.items()},
        cores_busy=sum(spent_s.values()) / (end_s - begin_s),
        others_busy=max(0.0, all_s - sum(spent_s.values())) / (end_s - begin_s),
        rss_kb=rss_kb,
    )


def _summary(windows: Mapping[str, Sequence[Window]]) -> dict[str, Any]:
    pairs = list(zip(windows["ours"], windows["direct"], strict=True))
    over_relay = (
        ours.itl_p99_ms - relay.itl_p99_ms for ours, relay in zip(windows["ours"], windows["relay"], strict=True)
    )
    return {
        "added_itl_p99_ms": round(statistics.median(ours.itl_p99_ms - direct.itl_p99_ms for ours, direct in pairs), 2),
        "added_itl_p99_over_relay_ms": round(statistics.median(over_relay), 2),
        "throughput_ratio": round(
            statistics.median(ours.tokens_per_s / direct.tokens_per_s for ours, direct in pairs), 4
        ),
        **{way: _medians(found) for way, found in windows.items()},
    }


def _medians(windows: Sequence[Window]) -> dict[str, Any]:
    names = ("itl_p50_ms", "itl_p99_ms", "tokens_per_s", "tokens_per_message", "cores_busy", "others_busy")
    return {
        **{name: round(statistics.median(getattr(window, name) for window in windows), 2) for name in names},
        "cpu_us_per_token": {
            name: round(statistics.median(window.cpu_us_per_token[name] for window in windows), 1)
            for name in windows[0].cpu_us_per_token
        },
    }


def _machine_s() -> float:
    """Seconds of CPU that the machine's cores have given to anyone."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def _rss_kb(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 1024


def _tell(line: str) -> None:
    print(f"generator: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
