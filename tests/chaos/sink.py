"""kill -9 of sink, broker, ClickHouse and gateway under load: what was promised is stored, and counted once.

`python -m tests.chaos.sink --runs 100 --json`; a run is repeated by its seed, which is told on standard error.
Exit status 1 when anything was lost, doubled or counted wrong.
"""

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.callers import Callers
from tests.chaos.counting import Counts, Outcome, settle
from tests.chaos.faults import Aim, plan
from tests.chaos.killing import Killer
from tests.chaos.stack import ChaosStack, open_chaos_stack

_ANSWERS_AFTERWARDS = 20
_RECOVER_WITHIN_S = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every run kept its promises."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.sink", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="how many (default: 5); one takes about 20 s")
    parser.add_argument("--seed", type=int, help="of the first run; the next has the next (default: drawn)")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON on standard output")
    parser.add_argument("--keep", type=Path, help="folder for data and logs that stays (default: one that goes)")
    options = parser.parse_args(arguments)
    first = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    with tempfile.TemporaryDirectory(prefix="binnacle-chaos-") as folder:
        report, faults = asyncio.run(_run_all(options.keep or Path(folder), seeds=range(first, first + options.runs)))
    for fault in faults:
        _say(f"FAULT {fault}")
    if options.json:
        print(json.dumps(report))
    return 1 if faults else 0


async def _run_all(folder: Path, *, seeds: range) -> tuple[dict[str, object], list[str]]:
    """The sums over all runs, and what was wrong in any."""
    outcomes: list[Outcome] = []
    aimed: Counter[Aim] = Counter()
    obstacles: set[str] = set()
    _say(f"starting the stack; its logs are in {folder / 'logs'}")
    async with open_chaos_stack(folder, say=_say) as stack:
        before = (await settle(stack, set())).counts
        for seed in seeds:
            killer, outcome, before = await _run(stack, seed, before=before)
            outcomes.append(outcome)
            aimed += killer.aimed
            obstacles |= killer.obstacles
            _say(f"run {len(outcomes)}: {outcome}")
            if not outcome.settled:  # what comes late would count in the next run
                break
    for obstacle in sorted(obstacles):
        _say(f"not aimed: {obstacle}")
    return (
        _report(outcomes, aimed=aimed, obstacles=obstacles),
        [f"seed {one.seed}: {fault}" for one in outcomes for fault in one.faults],
    )


async def _run(stack: ChaosStack, seed: int, *, before: Counts) -> tuple[Killer, Outcome, Counts]:
    faults = plan(seed)
    told = ", ".join(f"{one.victim} at {one.at_s:.1f} s{f' {one.aim}' if one.aim else ''}" for one in faults)
    _say(f"seed {seed}: {told}")
    callers = Callers()
    killer = Killer(stack.stack, stack.traps, callers.note_kill)
    async with callers.asking(stack.binnacle):
        await killer.carry_out(faults)
        await callers.wait_for(_ANSWERS_AFTERWARDS, within_s=_RECOVER_WITHIN_S)
    tally = await settle(stack, callers.acknowledged)
    for failure, times in Counter(callers.failures).most_common(3):
        _say(f"  {times} calls failed: {failure[:200]}")
    outcome = Outcome(
        seed=seed,
        kills=killer.kills.total(),
        acknowledged=len(callers.acknowledged),
        failed=len(callers.failures),
        counts=tally.counts.since(before),
        in_flight_at_kills=len(callers.in_flight_at_kills),
        lost=len(tally.missing),
        settled=tally.settled,
    )
    return killer, outcome, tally.counts


def _report(outcomes: Sequence[Outcome], *, aimed: Counter[Aim], obstacles: set[str]) -> dict[str, object]:
    return {
        "runs": len(outcomes),
        "kills": sum(one.kills for one in outcomes),
        "acknowledged": sum(one.acknowledged for one in outcomes),
        "stored": sum(one.counts.stored for one in outcomes),
        "distinct": sum(one.counts.distinct for one in outcomes),
        "rollup": sum(one.counts.rollup for one in outcomes),
        "unacknowledged": sum(one.unacknowledged for one in outcomes),
        "in_flight_at_kills": sum(one.in_flight_at_kills for one in outcomes),
        "lost": sum(one.lost for one in outcomes),
        "failed": sum(one.failed for one in outcomes),
        "seeds": [one.seed for one in outcomes],
        "aimed": {aim.value: aimed[aim] for aim in Aim},
        "not_aimed": sorted(obstacles),
    }


def _say(line: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} » {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
