"""How many whole checks a guardrail process answers in a second, asked over gRPC from another process.

Used by `guardrail_latency.py` and `guardrail_streaming.py`. The guardrail is `python -m services.guardrail` with its
own settings but for a bus in memory.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from binnacle.guardrail.v1 import guardrail_service_pb2 as rpc
from binnacle.guardrail.v1.guardrail_service_pb2_grpc import GuardrailServiceStub
from servicekit.rpc.client import open_channel
from services.local.layout import HOST, Layout, choose_ports
from services.local.process import Command, SupervisedProcess

_READY_S = 120.0
_AT_ONCE = 8
_WARMING_S = 2.0


async def measure(texts: Iterator[str], *, seconds: float) -> dict[str, float]:
    """Checks of inputs answered in a second by `_AT_ONCE` callers, and how long each waited."""
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder)) as guard:
            await _asked(guard.stub, texts, seconds=_WARMING_S)
            taken_ms = await _asked(guard.stub, texts, seconds=seconds)
    return {
        "checks_per_s": round(len(taken_ms) / seconds, 1),
        "p50_ms": round(statistics.median(taken_ms), 2),
        "p99_ms": round(sorted(taken_ms)[int(len(taken_ms) * 0.99)], 2),
        "callers": _AT_ONCE,
        "cores": len(os.sched_getaffinity(0)),
    }


async def _asked(guard: GuardrailServiceStub, texts: Iterator[str], *, seconds: float) -> list[float]:
    taken_ms: list[float] = []
    ends_s = time.monotonic() + seconds

    async def ask() -> None:
        while (began_s := time.monotonic()) < ends_s:
            await guard.CheckInput(rpc.CheckInputRequest(text=next(texts)), timeout=30)
            taken_ms.append((time.monotonic() - began_s) * 1_000)

    async with asyncio.TaskGroup() as callers:
        for _ in range(_AT_ONCE):
            callers.create_task(ask())
    return taken_ms


@dataclass(frozen=True, slots=True)
class Running:
    """A guardrail process."""

    stub: GuardrailServiceStub
    metrics_port: int

    async def cpu_s(self) -> float:
        """Seconds of CPU that it has taken so far."""
        return await asyncio.to_thread(_cpu_s, self.metrics_port)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Running]:
    """A guardrail with its own settings but for a bus in memory; taken down on exit."""
    ports = choose_ports({}, free=True)
    layout = Layout(folder, ports, overrides={})
    key = layout.prepare()
    env = layout.environment("guardrail", event_bus_url="memory://")
    ready = partial(asyncio.to_thread, _answers, ports["guardrail.metrics"])
    command = Command("guardrail", [sys.executable, "-m", "services.guardrail"], env, ready, ready_within_s=_READY_S)
    process = SupervisedProcess(command, log_dir=layout.log_dir, say=partial(print, file=sys.stderr))
    await process.start()
    watching = asyncio.ensure_future(process.watch())
    try:
        async with open_channel(ports.address("guardrail"), audience="guardrail", api_key=key) as channel:
            yield Running(GuardrailServiceStub(channel), ports["guardrail.metrics"])
    finally:
        await process.stop()
        await watching


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/healthz", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _cpu_s(port: int) -> float:
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("process_cpu_seconds_total ")))
