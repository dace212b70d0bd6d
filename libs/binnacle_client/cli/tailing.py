"""`binnacle tail TOPIC`: events as they come, or from a time on, decoded to JSON."""

import asyncio
import base64
import os
from collections.abc import Sequence
from datetime import UTC, datetime

import click
from google.protobuf.message import Message

from binnacle_client.cli.output import console, print_json
from binnacle_client.connection import Connection
from binnacle_client.events import Event, EventStream, Rejected, Start, StartAt, message_class, open_events, parse_time
from binnacle_client.events.json_lines import event_line, rejected_line
from binnacle_client.events.where import Condition, parse_condition
from servicekit.errors import InvalidRequest, NotReady
from servicekit.events.topics import TOPICS, TopicSpec


@click.command()
@click.argument("topic")
@click.option("--from-beginning", is_flag=True, help="Begin with the oldest record kept.")
@click.option("--since", metavar="TIME", help="Begin at a time: 90s, 15m, 2h, 3d ago, or 2025-06-01T14:00Z.")
@click.option(
    "--where",
    "wheres",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Only events of which this holds: a field (usage.input_tokens=12), key=… or a header (ce_tenant=acme). "
    "Repeat: all must hold.",
)
@click.option("--group", help="Go on where this Kafka group stopped, and commit what was printed.")
@click.option("--limit", type=click.IntRange(min=0), default=0, help="Stop after printing this many.  [default: never]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each event, envelope included.")
def tail(
    topic: str,
    from_beginning: bool,
    since: str | None,
    wheres: tuple[str, ...],
    group: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Print the events of TOPIC: its full name, or enough of it to be the only one (`interaction`).

    Begins with what comes from now on; a group begins with the oldest. Records that are no event of the topic are
    printed as such, with their bytes.
    """
    spec = find_topic(topic)
    message_type = message_class(spec.name)
    conditions = [parse_condition(text, message_type=message_type) for text in wheres]
    start = _start(from_beginning=from_beginning, since=since, group=group)
    servers = _servers()

    async def run() -> None:
        async with open_events(message_type, servers=servers, group=group, start=start) as events:
            await _print_events(events, conditions, limit=limit, as_json=as_json)

    asyncio.run(run())


def find_topic(name: str) -> TopicSpec:
    """The topic of that name, or the only one whose name holds it."""
    if name in TOPICS:
        return TOPICS[name]
    found = [spec for spec in TOPICS.values() if name in spec.name]
    if len(found) == 1:
        return found[0]
    told = f"{len(found)} topics match" if found else "no topic matches"
    raise InvalidRequest(f"topic: {told} {name!r}; there are {', '.join(sorted(TOPICS))}", field="topic")


def _start(*, from_beginning: bool, since: str | None, group: str | None) -> Start:
    if from_beginning and since:
        raise InvalidRequest("give --from-beginning or --since, not both", field="since")
    if since:
        return parse_time(since, now=datetime.now(UTC))
    return StartAt.EARLIEST if from_beginning or group else StartAt.LATEST


def _servers() -> str:
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or Connection.from_environment().kafka_bootstrap_servers
    if not servers:
        raise NotReady('KAFKA_BOOTSTRAP_SERVERS is not set: eval "$(binnacle env)", or name your Kafka\'s address')
    return servers


async def _print_events(
    events: EventStream[Message], conditions: Sequence[Condition], *, limit: int, as_json: bool
) -> None:
    count = 0
    async for event in events:
        # A record that is no event meets no condition, and is shown where none is asked for.
        wanted = all(one.holds(event) for one in conditions) if isinstance(event, Event) else not conditions
        if wanted:
            _print(event, as_json=as_json)
            count += 1
        await event.ack()
        if limit and count >= limit:
            return


def _print(event: Event[Message] | Rejected, *, as_json: bool) -> None:
    if as_json:
        print_json(event_line(event) if isinstance(event, Event) else rejected_line(event))
    elif isinstance(event, Event):
        told = f"{event.place.partition}:{event.place.offset} {event.time:%Y-%m-%dT%H:%M:%SZ} {event.envelope.tenant}"
        console.print(f"{told} {event.key}", style="bold", markup=False)
        console.print_json(data=event_line(event)["value"])
    else:
        console.print(f"{event.place.partition}:{event.place.offset} is no event: {event.reason}", markup=False)
        console.print(base64.b64encode(event.record.value or b"").decode(), markup=False, soft_wrap=True)


COMMANDS = (tail,)
