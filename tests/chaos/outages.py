"""Kafka away for a minute, then ClickHouse away for a minute, both under load: no failed answer, nothing missing.

`python -m tests.chaos.outages --json`. The process is killed and held down for `--seconds`. While ClickHouse is away
the topic is flooded too, so that the sink's memory is seen under a backlog. Exit status 1 when a promise was broken.
"""

import argparse
import asyncio
import dataclasses
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from services.local.process import SupervisedProcess
from tests.bench._interactions import interactions
from tests.bench._sink_stand import fill
from tests.chaos.callers import Callers
from tests.chaos.counting import Counts, settle
from tests.chaos.stack import ChaosStack, open_chaos_stack

_FLOOD = 150_000  # more than the sink buffers
_LOAD_AROUND_S = 5.0
_SAMPLE_S = 0.5
_MEMORY_GROWTH = 1.1
_WHOLE_WITHIN_S = 90.0


@dataclass
class Memory:
    """Samples of the sink's resident memory in MB during an outage."""

    samples: list[float] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """The most in the last third over the most in the second, when the backlog fills the buffer."""
        third = len(self.samples) // 3
        return max(self.samples[2 * third :]) / max(self.samples[third : 2 * third])


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.outages", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each outage (default: 60)")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON on standard output")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="binnacle-outages-") as folder:
        report = asyncio.run(_run(Path(folder), seconds=options.seconds))
    faults = [f"{name}: {fault}" for name, outcome in report.items() for fault in _faults(outcome)]
    for fault in faults:
        _say(f"FAULT {fault}")
    if options.json:
        print(json.dumps(report))
    return 1 if faults else 0


async def _run(folder: Path, *, seconds: float) -> dict[str, dict[str, float]]:
    gate = folder / "hold"
    _say(f"starting the stack; its logs are in {folder / 'logs'}")
    async with open_chaos_stack(folder, say=_say) as stack:
        for process in stack.stack.processes.values():
            put_behind_gate(process, gate)
        _say(f"Kafka away for {seconds:g} s")
        kafka = await _outage(stack, "broker", gate, seconds=seconds, meanwhile=_nothing)
        _say(f"ClickHouse away for {seconds:g} s, {_FLOOD} more events on the topic")

        async def flood() -> None:
            start_us = time.time_ns() // 1000 - 3_600_000_000
            events = interactions(_FLOOD, start_us=start_us, step_us=6_000)
            await asyncio.to_thread(fill, stack.kafka.address, events)

        clickhouse = await _outage(stack, "clickhouse", gate, seconds=seconds, meanwhile=flood, more=_FLOOD)
        return {"kafka": kafka, "clickhouse": clickhouse}


async def _nothing() -> None:
    return


def put_behind_gate(process: SupervisedProcess, gate: Path) -> None:
    """Have the process begin only when there is no such file, the next time it is started."""
    waits = 'while [ -e "$0" ]; do sleep 0.1; done; exec "$@"'
    command = process.command
    process.command = dataclasses.replace(command, argv=["sh", "-c", waits, str(gate), *command.argv])


async def _outage(
    stack: ChaosStack,
    victim: str,
    gate: Path,
    *,
    seconds: float,
    meanwhile: Callable[[], Awaitable[None]],
    more: int = 0,
) -> dict[str, float]:
    before = (await settle(stack, set())).counts
    callers, memory = Callers(), Memory()
    async with callers.asking(stack.binnacle), _sampling(stack.stack.processes["analytics"], memory):
        await asyncio.sleep(_LOAD_AROUND_S)
        gate.touch()
        pid = stack.stack.processes[victim].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        began, answered = time.monotonic(), len(callers.acknowledged)
        memory.samples.clear()
        await meanwhile()
        await asyncio.sleep(max(0.0, seconds - (time.monotonic() - began)))
        growth, peak_mb = memory.growth, max(memory.samples)
        answered = len(callers.acknowledged) - answered
        away_s = time.monotonic() - began
        gate.unlink()
        await asyncio.sleep(_LOAD_AROUND_S)
    for failure in callers.failures[:3]:
        _say(f"  a call failed: {failure[:200]}")
    counts, missing = await _settled(stack, callers.acknowledged, expected=before.stored + more)
    ledger = await _whole(stack)
    since = counts.since(before)
    return {
        "away_s": round(away_s, 1),
        "answers_while_away": answered,
        "failed": len(callers.failures),
        "acknowledged": len(callers.acknowledged) + more,
        "stored": since.stored,
        "distinct": since.distinct,
        "rollup": since.rollup,
        "lost": len(missing),
        "ledger_missing": ledger,
        "sink_peak_mb": round(peak_mb, 1),
        "sink_memory_growth": round(growth, 3),
    }


async def _settled(stack: ChaosStack, promised: set[str], *, expected: int) -> tuple[Counts, set[str]]:
    """A backlog takes its time."""
    give_up = time.monotonic() + _WHOLE_WITHIN_S
    while True:
        tally = await settle(stack, promised)
        if tally.counts.stored >= expected + len(promised) or time.monotonic() > give_up:
            return tally.counts, tally.missing


async def _whole(stack: ChaosStack) -> int:
    """What the ledger misses once nothing is on its way any more."""
    give_up = time.monotonic() + _WHOLE_WITHIN_S
    while (ledger := await stack.binnacle.completeness()).pending and time.monotonic() < give_up:
        await asyncio.sleep(1)
    return ledger.missing


@asynccontextmanager
async def _sampling(process: SupervisedProcess, memory: Memory) -> AsyncIterator[None]:
    async def sample() -> None:
        while True:
            if process.pid is not None:
                memory.samples.append(psutil.Process(process.pid).memory_info().rss / 2**20)
            await asyncio.sleep(_SAMPLE_S)

    sampling = asyncio.create_task(sample())
    try:
        yield
    finally:
        sampling.cancel()


def _faults(outcome: dict[str, float]) -> Sequence[str]:
    """What is wrong, for people; empty if nothing is."""
    wrong = [f"{name} {outcome[name]}" for name in ("failed", "lost", "ledger_missing") if outcome[name]]
    if not outcome["stored"] == outcome["distinct"] == outcome["rollup"]:
        wrong.append("stored, distinct and rollup differ")
    if not outcome["answers_while_away"]:
        wrong.append("no answers while it was away")
    if outcome["sink_memory_growth"] > _MEMORY_GROWTH:
        wrong.append(f"the sink's memory grew by {outcome['sink_memory_growth']}")
    return wrong


def _say(line: str) -> None:
    print(f"» {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
