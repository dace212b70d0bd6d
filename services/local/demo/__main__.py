"""`python -m services.local.demo`: from nothing to a drift alert, every count read back from ClickHouse.

Starts a stack of its own in a folder that goes at the end; exit status 0 only if every count agrees.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from binnacle_client.cli.output import console, notes, print_json
from binnacle_client.client import Binnacle, open_client
from binnacle_client.connection import Connection
from servicekit.adapters.registry import open_analytics_store
from services.local.__main__ import run_to_end, say
from services.local.demo.corpus import documents
from services.local.demo.course import Course, run_course
from services.local.demo.questions import QUESTIONS, SHIFTED_QUESTIONS
from services.local.demo.readback import Counts, read_counts, wait_for_counts
from services.local.demo.summary import Summary, show, summarize
from services.local.layout import Layout, choose_ports
from services.local.supervisor import LocalStack, run_stack

_LANDED_WITHIN_S = 30.0
_GAP_ATTEMPTS = 15
# The demo asks dozens of questions, not thousands: its windows are as small as a test can bear.
_SMALL_WINDOWS = {
    "BINNACLE_DRIFT_MONITOR__REFERENCE_SIZE": str(len(QUESTIONS)),
    "BINNACLE_DRIFT_MONITOR__CURRENT_SIZE": str(len(SHIFTED_QUESTIONS)),
    # Windows end at each full hour; a demo that runs across one must not be cut in two.
    "BINNACLE_DRIFT_MONITOR__SPAN_S": str(365 * 86_400),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 if every count agrees, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m services.local.demo", description=__doc__)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON on standard output")
    options = parser.parse_args(arguments)
    summaries: list[Summary] = []
    with tempfile.TemporaryDirectory(prefix="binnacle-demo-") as folder:
        layout = Layout(Path(folder), choose_ports({}, free=True), overrides=_SMALL_WINDOWS)
        status = run_to_end(_demo(layout, summaries, as_json=options.json))
    if options.json:
        for summary in summaries:
            print_json(summary.figures)
    return status or min(sum(len(summary.failures) for summary in summaries), 1)


async def _demo(layout: Layout, summaries: list[Summary], *, as_json: bool) -> None:
    began = time.monotonic()
    say("starting the stack: broker, ClickHouse, seven services, one process each")
    async with run_stack(layout, say=say) as stack:
        connection = Connection.from_stack_file(layout.stack_file)
        async with open_client(connection) as binnacle:
            course = await run_course(binnacle, list(documents()), say=say)
        counts = await _read_back(stack, course)
        summary = summarize(course, counts, demo_seconds=time.monotonic() - began)
        show(summary, course, counts, console=notes if as_json else console)
        summaries.append(summary)


async def _read_back(stack: LocalStack, course: Course) -> Counts:
    say("reading everything back from ClickHouse")
    asked = len(course.answers) + len(course.shifted)
    async with open_analytics_store(stack.layout.clickhouse_url) as store:
        await wait_for_counts(store, interactions=asked, feedback=len(course.feedback_ids), timeout_s=_LANDED_WITHIN_S)
        async with open_client(Connection.from_stack_file(stack.layout.stack_file)) as binnacle:
            gaps = await _settled_gaps(binnacle)
        return await read_counts(store, gaps=gaps)


async def _settled_gaps(binnacle: Binnacle) -> int:
    """Records missing, evicted or on their way, so a gap is asked for again."""
    gaps = -1
    for _ in range(_GAP_ATTEMPTS):
        ledger = await binnacle.completeness()
        gaps = ledger.missing + ledger.pending + ledger.dead_lettered + ledger.evicted
        if not gaps:
            break
        await asyncio.sleep(1)
    return gaps


if __name__ == "__main__":
    sys.exit(main())
