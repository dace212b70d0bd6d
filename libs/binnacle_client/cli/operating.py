"""`binnacle alerts`, `usage`, `status` and `env`: what an operator looks at."""

import asyncio
import shlex
from datetime import UTC, datetime, timedelta

import click

from binnacle_client.answers import DriftAlert
from binnacle_client.cli.output import console, print_json, print_table
from binnacle_client.client import open_client
from binnacle_client.connection import SERVICES, Connection

_NOT_HEALTHY = 6
_GROUPS = ["tenant", "model", "prompt", "route", "project", "hour", "day"]


@click.command()
@click.option("--follow", is_flag=True, help="Stay, and print every change.")
@click.option("--after", default=0, help="Resume behind this cursor.")
@click.option("--acknowledge", metavar="ALERT_ID", help="Say that you look after an alert.")
@click.option("--note", default="", help="With --acknowledge: what is being done.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each alert.")
def alerts(follow: bool, after: int, acknowledge: str | None, note: str, as_json: bool) -> None:
    """List drift alerts, newest first; or follow them; or acknowledge one."""

    async def run() -> None:
        async with open_client(Connection.from_environment()) as binnacle:
            if acknowledge:
                _print_alert(await binnacle.acknowledge_alert(acknowledge, note=note), as_json=as_json)
            elif follow:
                async for alert in binnacle.alerts(after_cursor=after):
                    _print_alert(alert, as_json=as_json)
            else:
                for alert in await binnacle.list_alerts():
                    _print_alert(alert, as_json=as_json)

    asyncio.run(run())


def _print_alert(alert: DriftAlert, *, as_json: bool) -> None:
    if as_json:
        print_json(alert)
        return
    when = alert.fire_time.strftime("%Y-%m-%d %H:%M:%SZ") if alert.fire_time else ""
    console.print(
        f"{when}  {alert.severity:<8} {alert.state:<12} {alert.signal} in {alert.segment}: mean "
        f"{alert.reference_mean:.3g} → {alert.current_mean:.3g} ({alert.test} {alert.statistic:.3g}, "
        f"threshold {alert.threshold:.3g})  {alert.alert_id}",
        markup=False,
        soft_wrap=True,
    )


@click.command()
@click.option(
    "--by", "group_by", multiple=True, type=click.Choice(_GROUPS), help="Repeat for several.  [default: model]"
)
@click.option("--hours", default=24.0, show_default=True, help="How far back.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each group.")
def usage(group_by: tuple[str, ...], hours: float, as_json: bool) -> None:
    """Requests, tokens and cost by group."""
    groups = group_by or ("model",)

    async def run() -> None:
        async with open_client(Connection.from_environment()) as binnacle:
            rows = await binnacle.usage(group_by=groups, start=datetime.now(UTC) - timedelta(hours=hours))
        if as_json:
            for row in rows:
                print_json(row)
        else:
            print_table(
                f"last {hours:g} h, tokens in and out",
                [*groups, "requests", "errors", "blocked", "in", "out", "US$", "p50 ms", "p95 ms"],
                [
                    [
                        *(row.group.get(name, "") for name in groups),
                        row.requests,
                        row.errors,
                        row.blocked,
                        row.input_tokens,
                        row.output_tokens,
                        f"{row.cost_microusd / 1e6:.4f}",
                        f"{row.latency_p50_us / 1e3:.1f}",
                        f"{row.latency_p95_us / 1e3:.1f}",
                    ]
                    for row in rows
                ],
            )

    asyncio.run(run())


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(as_json: bool) -> None:
    """Health of every service. Exit status 6 unless all serve."""

    async def run() -> dict[str, str]:
        async with open_client(Connection.from_environment()) as binnacle:
            states = await asyncio.gather(*(binnacle.health(service) for service in SERVICES))
        return dict(zip(SERVICES, states, strict=True))

    connection = Connection.from_environment()
    states = asyncio.run(run())
    if as_json:
        print_json({"healthy": set(states.values()) == {"serving"}, "services": states})
    else:
        rows = [[name, connection.target(name), state] for name, state in states.items()]
        print_table("services", ["service", "target", "health"], rows)
    if set(states.values()) != {"serving"}:
        raise click.exceptions.Exit(_NOT_HEALTHY)


@click.command(name="env")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def environment(as_json: bool) -> None:
    """Print shell exports for the running stack: eval "$(binnacle env)"."""
    exports = Connection.from_environment().exports()
    if as_json:
        print_json(exports)
    else:
        for name, value in exports.items():
            click.echo(f"export {name}={shlex.quote(value)}")


COMMANDS = (alerts, usage, status, environment)
