"""`binnacle dlq list`, `show` and `replay`: what consumers refused, why, and how it comes back."""

import asyncio
import heapq
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import click

from binnacle_client.cli.output import console, print_json, print_table
from binnacle_client.cli.tailing import find_topic
from binnacle_client.connection import Connection
from binnacle_client.dead_letters import DeadLetterDesk, FoundLetter, open_desk
from servicekit.errors import InvalidRequest, NotFound
from servicekit.events.topics import parse_dead_letter_topic

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"(\d+)([smhd])")
_PLACE = re.compile(r"(\d+):(\d+)")

Condition = Callable[[FoundLetter], bool]

_FIELDS: Mapping[str, Callable[[FoundLetter], str]] = MappingProxyType(
    {
        "topic": lambda letter: letter.burial.origin.topic,
        "partition": lambda letter: str(letter.burial.origin.partition),
        "offset": lambda letter: str(letter.burial.origin.offset),
        "group": lambda letter: letter.burial.group,
        "stage": lambda letter: letter.burial.stage,
        "error-class": lambda letter: letter.burial.error_class,
        "schema": lambda letter: letter.burial.schema,
        "tenant": lambda letter: letter.tenant,
        "key": lambda letter: (letter.key or b"").decode("utf-8", "replace"),
        "replays": lambda letter: str(letter.burial.origin.replays),
        "place": lambda letter: letter.place,
    }
)
_COUNTED = ("topic", "group", "stage", "error-class")


@click.group()
def dlq() -> None:
    """Look at dead letters, records that a consumer refused, and replay them to that consumer."""


def _selecting(command: Callable[..., None]) -> Callable[..., None]:
    """The options that choose among dead letters."""
    where_help = (
        f"Only those with this value; several must all hold. Names: {', '.join(_FIELDS)}, error (a part of it)."
    )
    command = click.option("--since", metavar="AGE", help="Buried since: 30m, 2h, 7d or 2026-01-31T12:00Z.")(command)
    command = click.option("--where", multiple=True, metavar="NAME=VALUE", help=where_help)(command)
    command = click.option("--group", default="", help="Only those of this consumer group.")(command)
    return click.argument("topic", default="")(command)


@dlq.command(name="list")
@_selecting
@click.option("--limit", default=10, show_default=True, help="How many of the newest to show.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: total, counts, newest.")
def list_letters(topic: str, group: str, where: tuple[str, ...], since: str | None, limit: int, as_json: bool) -> None:
    """Count dead letters by topic, group, stage and error, and show the newest.

    TOPIC is a topic, enough of its name, or a dead-letter topic.  [default: all]
    """
    holds = _condition(where, since)

    async def run() -> tuple[Counter[tuple[str, ...]], list[FoundLetter]]:
        counts: Counter[tuple[str, ...]] = Counter()
        newest: list[tuple[datetime, str, int, int, FoundLetter]] = []
        async with open_desk(_servers()) as desk:
            async for letter in desk.read(_names(desk, topic, group)):
                if holds(letter):
                    counts[tuple(_FIELDS[name](letter) for name in _COUNTED)] += 1
                    heapq.heappush(newest, (letter.time, letter.topic, letter.partition, letter.offset, letter))
                    if len(newest) > limit:
                        heapq.heappop(newest)
        return counts, [entry[-1] for entry in sorted(newest, reverse=True)]

    counts, newest = asyncio.run(run())
    if as_json:
        told = [{**dict(zip(_COUNTED, values, strict=True)), "count": n} for values, n in counts.most_common()]
        print_json({"total": counts.total(), "counts": told, "newest": [_told(letter) for letter in newest]})
        return
    print_table("dead letters", [*_COUNTED, "count"], [[*values, n] for values, n in counts.most_common()])
    _print_letters(f"the newest {len(newest)} of {counts.total()}", newest)


@dlq.command()
@click.argument("topic")
@click.argument("place", metavar="PARTITION:OFFSET")
@click.option("--group", default="", help="Whose, where several groups have dead letters of TOPIC.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(topic: str, place: str, group: str, as_json: bool) -> None:
    """Print one dead letter: why, its headers, and its value decoded, or in hexadecimal where it does not parse.

    TOPIC as in `list`; PARTITION:OFFSET is its place on the dead-letter topic, as `list` shows it.
    """
    if not _PLACE.fullmatch(place):
        raise InvalidRequest(f"place must read PARTITION:OFFSET, got {place!r}", field="place")

    async def run() -> list[FoundLetter]:
        async with open_desk(_servers()) as desk:
            return [letter async for letter in desk.read(_names(desk, topic, group)) if letter.place == place]

    found = asyncio.run(run())
    if not found:
        raise NotFound(f"no dead letter lies at {place} of {topic}; `binnacle dlq list {topic}` shows where they do")
    if len(found) > 1:
        groups = ", ".join(letter.burial.group for letter in found)
        raise InvalidRequest(f"--group: dead letters of {groups} lie at {place}: name one", field="group")
    told = {**_told(found[0]), "headers": _headers(found[0]), "value": found[0].decoded()}
    if as_json:
        print_json(told)
        return
    for name, value in told.items():
        if name not in {"headers", "value"}:
            console.print(f"{name:<20} {value}", markup=False, soft_wrap=True)
    console.print_json(data={"headers": told["headers"], "value": told["value"]})


@dlq.command()
@_selecting
@click.option("--dry-run", is_flag=True, help="Only show what would be replayed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; needs --yes or --dry-run.")
def replay(
    topic: str, group: str, where: tuple[str, ...], since: str | None, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Give dead letters back to the consumer group that refused them, and to no other.

    It may be repeated: an event that was stored or handled before counts once. One that is refused again becomes a
    dead letter again, with its number of replays. TOPIC as in `list`.
    """
    if as_json and not (dry_run or yes):
        raise click.UsageError("--json cannot ask: add --yes or --dry-run")
    holds = _condition(where, since)

    async def run() -> tuple[Collection[FoundLetter], int]:
        async with open_desk(_servers()) as desk:
            chosen = await _choose(desk, _names(desk, topic, group), holds)
            if not as_json:
                _print_letters(f"{len(chosen)} to replay", chosen)
            if dry_run or not chosen:
                return chosen, 0
            if not yes:
                click.confirm(f"Replay {len(chosen)} dead letters?", abort=True)
            return chosen, await desk.replay(chosen)

    chosen, replayed = asyncio.run(run())
    if as_json:
        print_json({"matching": len(chosen), "replayed": replayed, "letters": [_told(letter) for letter in chosen]})
    elif replayed:
        console.print(f"replayed {replayed}; what is refused again is listed again", markup=False)


async def _choose(desk: DeadLetterDesk, names: Collection[str], holds: Condition) -> Collection[FoundLetter]:
    """One for each record and group: a dead letter that was buried twice, or replayed, is the same record."""
    chosen: dict[tuple[str, int, int, str], FoundLetter] = {}
    async for letter in desk.read(names):
        if holds(letter):
            origin = letter.burial.origin
            record = origin.topic, origin.partition, origin.offset, letter.burial.group
            before = chosen.get(record)
            if before is None or before.burial.origin.replays <= origin.replays:
                chosen[record] = letter
    return [chosen[record] for record in sorted(chosen)]


def _servers() -> str:
    return Connection.from_environment().kafka_bootstrap_servers


def _names(desk: DeadLetterDesk, topic: str, group: str) -> Collection[str]:
    full_name = topic if not topic or parse_dead_letter_topic(topic) else find_topic(topic).name
    return desk.topics(topic=full_name, group=group)


def _condition(where: Collection[str], since: str | None) -> Condition:
    conditions = [_where(text) for text in where]
    if since is not None:
        start = _start(since)
        conditions.append(lambda letter: letter.time >= start)
    return lambda letter: all(holds(letter) for holds in conditions)


def _where(text: str) -> Condition:
    name, separator, wanted = text.partition("=")
    if name == "error" and separator:
        return lambda letter: wanted in letter.burial.error
    if name not in _FIELDS or not separator:
        raise click.BadParameter(
            f"{text!r} is no NAME=VALUE with a name of {', '.join(_FIELDS)}, error", param_hint="--where"
        )
    field = _FIELDS[name]
    return lambda letter: field(letter) == wanted


def _start(since: str) -> datetime:
    if span := _SPAN.fullmatch(since):
        return datetime.now(UTC) - timedelta(seconds=int(span[1]) * _UNITS_S[span[2]])
    try:
        given = datetime.fromisoformat(since)
    except ValueError as exc:
        raise click.BadParameter(f"{since!r} is neither an age (30m, 2h, 7d) nor a time", param_hint="--since") from exc
    return given if given.tzinfo else given.replace(tzinfo=UTC)


def _told(letter: FoundLetter) -> dict[str, Any]:
    burial, origin = letter.burial, letter.burial.origin
    return {
        "dead_letter_topic": letter.topic,
        "place": letter.place,
        "buried": letter.time,
        "topic": origin.topic,
        "partition": origin.partition,
        "offset": origin.offset,
        "group": burial.group,
        "stage": burial.stage,
        "error_class": burial.error_class,
        "error": burial.error,
        "schema": burial.schema,
        "content_type": burial.content_type,
        "tenant": letter.tenant,
        "key": _FIELDS["key"](letter),
        "record_time": origin.time,
        "first_failure_time": origin.first_failure_time,
        "replays": origin.replays,
    }


def _headers(letter: FoundLetter) -> list[list[str | None]]:
    """In their order: a name may stand more than once."""
    return [
        [name, None if value is None else value.decode("utf-8", "backslashreplace")]
        for name, value in letter.original_headers
    ]


def _print_letters(title: str, letters: Collection[FoundLetter]) -> None:
    print_table(
        title,
        ["dead-letter topic", "place", "buried", "stage", "tenant", "replays", "error"],
        [
            [
                letter.topic,
                letter.place,
                letter.time.strftime("%Y-%m-%d %H:%M:%SZ"),
                letter.burial.stage,
                letter.tenant,
                letter.burial.origin.replays,
                letter.burial.error[:120],
            ]
            for letter in letters
        ],
    )
