"""`binnacle complete`: is everything stored that was accepted, and if not, exactly what is not."""

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta

import click

from binnacle_client.answers import Completeness, Finding
from binnacle_client.cli.moments import read_moment
from binnacle_client.cli.output import console, print_json, print_table
from binnacle_client.client import open_client
from binnacle_client.connection import Connection

_NOT_WHOLE = 6
_SHOWN_RANGES = 20


@click.command()
@click.option("--topic", default="", help="One topic.  [default: all]")
@click.option("--hours", default=24.0, show_default=True, help="How far back.")
@click.option(
    "--from", "start_text", metavar="TIME", help="Instead of --hours: from 14:00 on, or from an ISO 8601 time."
)
@click.option("--to", "end_text", metavar="TIME", help="Up to this time.  [default: now]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def complete(topic: str, hours: float, start_text: str | None, end_text: str | None, as_json: bool) -> None:
    """Is everything stored that was accepted?

    The first line says so: "whole"; "whole so far" while producers of the window still report, or records are on
    their way (in a producer's spool, or not read from the topic yet); "not whole" when records are missing or dead
    letters, or when a producer died and nobody can know what it sent last. A table then names each producer, topic,
    partition and sequence. Times are UTC unless they say otherwise; 14:00 is the last one that has been.

    Exit status 6 when it is not whole, else 0.
    """
    now = datetime.now(UTC)
    end = read_moment(end_text, latest=now, option="--to") if end_text else now
    start = read_moment(start_text, latest=end, option="--from") if start_text else end - timedelta(hours=hours)

    async def run() -> Completeness:
        async with open_client(Connection.from_environment()) as binnacle:
            return await binnacle.completeness(topic=topic, start=start, end=end)

    ledger = asyncio.run(run())
    if as_json:
        print_json({"verdict": ledger.verdict, **dataclasses.asdict(ledger)})
    else:
        _show(ledger, start=start, end=end)
    if ledger.verdict == "not whole":
        raise click.exceptions.Exit(_NOT_WHOLE)


def _show(ledger: Completeness, *, start: datetime, end: datetime) -> None:
    console.print(
        f"{ledger.verdict}: {start:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S} UTC: {ledger.accepted} accepted, "
        f"{ledger.stored} stored once, {ledger.missing} missing, {ledger.pending} pending, {ledger.dead_lettered} dead "
        f"letters, {ledger.duplicates} duplicates, {ledger.unknown_tails} producers with an unknown tail, "
        f"{ledger.open} open, {ledger.evicted} evicted",
        markup=False,
        soft_wrap=True,
    )
    told = [finding for finding in ledger.findings if finding.what != "open"]  # nearly all, most of the time
    if told:
        print_table(
            "what is wrong, or not known yet",
            ["what", "count", "topic", "partition", "sequences", "producer"],
            [[one.what, one.count, one.topic, one.partition, _ranges(one), one.producer] for one in told],
        )


def _ranges(finding: Finding) -> str:
    shown = [f"{first}" if first == last else f"{first}-{last}" for first, last in finding.ranges[:_SHOWN_RANGES]]
    if len(finding.ranges) > _SHOWN_RANGES:
        shown.append(f"and {len(finding.ranges) - _SHOWN_RANGES} more ranges (--json)")
    return f"after {finding.after}" if finding.after is not None else ", ".join(shown)


COMMANDS = (complete,)
