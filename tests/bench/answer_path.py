"""What one answer costs: raw gRPC echo, the gateway passing through, and the whole guarded path, alternating.

`python -m tests.bench.answer_path --json`. Starts a stack of its own over the demo corpus; figures are medians over
the rounds. `echo` is a bare grpc.aio server; `passthrough` goes gateway → generator → a TGI contract server without
latency, with the record acknowledged; `guarded` adds guards and retrieval, and answers extractively.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil

from binnacle_client.answers import QuestionOptions
from binnacle_client.cli.ingesting import batches
from binnacle_client.client import Binnacle, open_client
from binnacle_client.connection import Connection
from services.local.demo.corpus import documents
from services.local.demo.questions import QUESTIONS
from services.local.layout import Layout, choose_ports
from services.local.supervisor import LocalStack, run_stack

_CONCURRENCY = 8
_MODEL = "contract"
_ROUTES = {
    "default": {},
    "passthrough": {"retrieval": False, "guard": False, "model": _MODEL},
}

Timings = Mapping[str, int]
Ask = Callable[[int], Awaitable[Timings]]


@dataclass
class Figures:
    """One path's latencies and rates, by round."""

    latencies_ms: list[list[float]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    stages_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def summary(self) -> dict[str, float]:
        """Medians over the rounds."""
        quantiles = [statistics.quantiles(sample, n=100, method="inclusive") for sample in self.latencies_ms]
        return {
            "p50_ms": round(statistics.median(q[49] for q in quantiles), 2),
            "p95_ms": round(statistics.median(q[94] for q in quantiles), 2),
            "p99_ms": round(statistics.median(q[98] for q in quantiles), 2),
            "rps": round(statistics.median(self.rates), 1),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the last line of standard output is one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.answer_path", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds (default 5)")
    parser.add_argument("--requests", type=int, default=100, help="requests a path and round (default 100)")
    parser.add_argument("--json", action="store_true", help="accepted for the sake of uniformity: JSON is always last")
    options = parser.parse_args(arguments)
    result = asyncio.run(_bench(rounds=options.rounds, requests=options.requests))
    print(json.dumps(result))
    return 0


async def _bench(*, rounds: int, requests: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="binnacle-bench-") as folder, _contract_server() as tgi, _echo() as echo:
        layout = Layout(Path(folder), choose_ports({}, free=True), overrides=_overrides(tgi))
        _tell("starting the stack")
        began = time.monotonic()
        async with run_stack(layout, say=lambda _: None) as stack:
            startup_s = time.monotonic() - began
            async with (
                open_client(Connection.from_stack_file(layout.stack_file)) as binnacle,
                grpc.aio.insecure_channel(f"127.0.0.1:{echo}") as channel,
            ):
                await _index(binnacle)
                paths = {
                    "echo": _echo_ask(channel),
                    "passthrough": _ask(binnacle, "passthrough"),
                    "guarded": _ask(binnacle, "default"),
                }
                figures = await _measure(paths, rounds=rounds, requests=requests)
                memory = _memory(stack)
    stages = {stage: round(statistics.median(sample), 2) for stage, sample in figures["guarded"].stages_ms.items()}
    return {
        "echo": figures["echo"].summary(),
        "passthrough": figures["passthrough"].summary(),
        "guarded": {**figures["guarded"].summary(), "stages_ms": stages},
        "memory_mb": memory,
        "startup_s": round(startup_s, 1),
        "rounds": rounds,
        "requests": requests,
        "concurrency_of_rps": _CONCURRENCY,
    }


def _overrides(tgi: str) -> dict[str, str]:
    models = {
        "default": {"engine_url": "extractive://"},
        _MODEL: {"engine_url": f"tgi://{tgi}"},
    }
    return {
        "BINNACLE_GATEWAY__ROUTES": json.dumps(_ROUTES),
        "BINNACLE_GENERATOR__MODELS": json.dumps(models),
    }


async def _index(binnacle: Binnacle) -> None:
    chunks = 0
    for batch in batches(documents()):
        chunks += sum(result.chunk_count for result in await binnacle.index(batch))
    _tell(f"{chunks} chunks indexed")


def _echo_ask(channel: grpc.aio.Channel) -> Ask:
    call = channel.unary_unary("/bench.Echo/Echo")

    async def ask(number: int) -> Timings:
        await call(QUESTIONS[number % len(QUESTIONS)].text.encode())
        return {}

    return ask


def _ask(binnacle: Binnacle, route: str) -> Ask:
    options = QuestionOptions(route=route)

    async def ask(number: int) -> Timings:
        answer = await binnacle.ask(QUESTIONS[number % len(QUESTIONS)].text, options, timeout_s=30)
        return answer.timings_us

    return ask


async def _measure(paths: Mapping[str, Ask], *, rounds: int, requests: int) -> dict[str, Figures]:
    figures = {name: Figures() for name in paths}
    for name, ask in paths.items():
        for number in range(10):
            await ask(number)
        _tell(f"{name}: warm")
    for number in range(1, rounds + 1):
        for name, ask in paths.items():
            await _one_by_one(ask, requests, figures[name])
            figures[name].rates.append(await _at_once(ask, requests))
        told = ", ".join(f"{n} {statistics.median(f.latencies_ms[-1]):.2f} ms" for n, f in figures.items())
        _tell(f"round {number} of {rounds}: {told}")
    return figures


async def _one_by_one(ask: Ask, requests: int, figures: Figures) -> None:
    latencies = []
    for number in range(requests):
        began = time.perf_counter()
        timings = await ask(number)
        latencies.append((time.perf_counter() - began) * 1e3)
        for stage, duration_us in timings.items():
            figures.stages_ms[stage].append(duration_us / 1e3)
    figures.latencies_ms.append(latencies)


async def _at_once(ask: Ask, requests: int) -> float:
    numbers = iter(range(requests))

    async def work() -> None:
        for number in numbers:
            await ask(number)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(_CONCURRENCY)))
    return requests / (time.perf_counter() - began)


def _memory(stack: LocalStack) -> dict[str, int]:
    pids = {name: process.pid for name, process in stack.processes.items()}
    return {name: psutil.Process(pid).memory_info().rss // 2**20 for name, pid in pids.items() if pid}


@contextmanager
def _echo() -> Iterator[str]:
    with _process([sys.executable, "-m", "tests.bench._echo_server"]) as first_line:
        yield first_line


@contextmanager
def _contract_server() -> Iterator[str]:
    argv = [sys.executable, "-m", "servicekit.testing.tgi_server", "--port", "0", "--first-token-s", "0"]
    with _process([*argv, "--tokens-per-s", "0", "--output-tokens", "16"]) as first_line:
        yield first_line.split("//")[-1].strip("/ ")


@contextmanager
def _process(argv: Sequence[str]) -> Iterator[str]:
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(10)


def _tell(line: str) -> None:
    print(f"answer_path: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
