"""kill -9 of the retriever at every step of its pipeline, while documents are written and a search loop checks answers.

`python -m tests.chaos.ingest --runs 50 --json`; a run is repeated by its seed, which is told on standard error. In some
runs the broker dies too. Exit status 1 when a document was lost, doubled, mixed, missed by a search or not told of.
"""

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import grpc

from binnacle.retriever.v1 import retriever_service_pb2 as rpc
from tests.chaos.ingest_aims import Aim, plan
from tests.chaos.ingest_callers import Callers
from tests.chaos.ingest_documents import Act, Script, write_scripts
from tests.chaos.ingest_events import Told, read_told
from tests.chaos.ingest_killing import Killer
from tests.chaos.ingest_stack import IngestStack, Store, open_ingest_stack

_DOCUMENTS = 8
_CALL_S = 10.0
_SEARCH_FAULTS = ("duplicate_chunks", "mixed_revisions", "missing_reads", "hidden_reads", "went_back", "version_fell")


@dataclass
class Report:
    """The sums over all runs."""

    runs: int = 0
    searches: int = 0
    unavailable: int = 0
    submitted: int = 0
    lost: int = 0
    untold: int = 0
    by_step: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    obstacles: set[str] = field(default_factory=set)

    def add(self, seed: int, callers: Callers, killer: Killer, untold: Sequence[str]) -> None:
        """One run."""
        self.runs += 1
        self.searches += callers.tally.searches
        self.unavailable += callers.tally.unavailable
        self.submitted += callers.submitted
        self.lost += len(callers.lost)
        self.untold += len(untold)
        self.by_step += killer.by_step
        self.found += callers.tally.counts
        self.obstacles |= killer.obstacles
        told = [*callers.tally.told, *callers.lost, *untold, *(f"unexpected {one}" for one in callers.unexpected)]
        self.faults += [f"seed {seed}: {one}" for one in told]

    def as_json(self, *, seeds: range) -> dict[str, object]:
        """What `--json` prints."""
        return {
            "runs": self.runs,
            "kills": self.by_step.total(),
            "kills_by_step": dict(sorted(self.by_step.items())),
            "submitted": self.submitted,
            "lost": self.lost,
            "untold": self.untold,
            **{name: self.found[name] for name in _SEARCH_FAULTS},
            "searches": self.searches,
            "unavailable": self.unavailable,
            "seeds": list(seeds),
            "not_aimed": sorted(self.obstacles),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every run kept its promises."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.ingest", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="how many (default: 5); one takes about 15 s")
    parser.add_argument("--seed", type=int, help="of the first run; the next has the next (default: drawn)")
    parser.add_argument("--store", type=Store, choices=list(Store), default=Store.LANCEDB, help="(default: lancedb)")
    parser.add_argument(
        "--embedder-url", default="onnx://minilm?precision=int8&threads=1", help="(default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="end with one line of JSON on standard output")
    parser.add_argument("--keep", type=Path, help="folder for data and logs that stays (default: one that goes)")
    options = parser.parse_args(arguments)
    first = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    seeds = range(first, first + options.runs)
    with tempfile.TemporaryDirectory(prefix="binnacle-ingest-chaos-") as folder:
        report = asyncio.run(
            _run_all(options.keep or Path(folder), seeds, store=options.store, embedder_url=options.embedder_url)
        )
    for fault in report.faults:
        _say(f"FAULT {fault}")
    if options.json:
        print(json.dumps(report.as_json(seeds=seeds)))
    return 1 if report.faults else 0


async def _run_all(folder: Path, seeds: range, *, store: Store, embedder_url: str) -> Report:
    report = Report()
    _say(f"starting the processes; their logs are in {folder / 'logs'}")
    async with open_ingest_stack(folder, store=store, embedder_url=embedder_url, say=_say) as stack:
        # The first document waits for topics and for the group: no run is to begin with that.
        first = Callers(stack.stub, write_scripts(seeds.start, documents=1, prefix="first"), stack.files)
        await first.write_all()
        for seed in seeds:
            await _run(stack, seed, report)
            if report.lost:  # what comes late would disturb the next run
                break
    return report


async def _run(stack: IngestStack, seed: int, report: Report) -> None:
    faults = plan(seed, aims=tuple(Aim))
    told = ", ".join(f"{one.victim} at {one.at_s:.1f} s{f' {one.aim}' if one.aim else ''}" for one in faults)
    _say(f"seed {seed}: {told}")
    callers = Callers(stack.stub, write_scripts(seed, documents=_DOCUMENTS), stack.files)
    killer = Killer(stack)
    async with asyncio.TaskGroup() as searching:
        searching.create_task(callers.search_on())
        async with asyncio.TaskGroup() as working:
            working.create_task(callers.write_all())
            working.create_task(killer.carry_out(faults))
        for script in callers.scripts:
            await callers.look_for(script.document_id)
        callers.stop()
    untold = [] if callers.lost else await _untold(stack, callers)
    report.add(seed, callers, killer, untold)
    _say(
        f"run {report.runs}: {dict(killer.by_step)}, {callers.submitted} submitted, {callers.tally.searches} searches, "
        f"{len(callers.lost)} lost, {len(untold)} untold, {dict(callers.tally.counts)}"
    )


async def _untold(stack: IngestStack, callers: Callers) -> Sequence[str]:
    """How each document ended, and which of its events are not on the topic."""
    told = await asyncio.to_thread(read_told, stack.kafka.address)
    return [fault for script in callers.scripts for fault in await _ended_wrong(stack, script, told)]


async def _ended_wrong(stack: IngestStack, script: Script, told: Told) -> Sequence[str]:
    request = rpc.GetDocumentRequest(document_id=script.document_id)
    try:
        document = (await stack.stub.GetDocument(request, timeout=_CALL_S)).document
    except grpc.aio.AioRpcError as exc:
        if exc.code() is grpc.StatusCode.NOT_FOUND and script.ends_as is Act.DELETE:
            return told.missing(script, revision=0)
        return [f"{script.document_id}: {exc.code().name} in the end"]
    if document.HasField("retract_time") != (script.ends_as is Act.RETRACT) or script.ends_as is Act.DELETE:
        return [f"{script.document_id}: should have ended by {script.ends_as}"]
    return told.missing(script, revision=document.revision)


def _say(line: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} » {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
