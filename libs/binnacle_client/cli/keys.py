"""`binnacle keys`: makes, lists and revokes API keys in the file that the services read."""

import os
from pathlib import Path

import click

from binnacle_client.cli.output import console, notes, print_json, print_table
from binnacle_client.connection import stack_file_of
from servicekit.rpc.api_keys import create_key, read_keys, revoke_key

_IN_STACK = Path("secrets/api_keys.json")


def _stacks_file() -> Path:
    return stack_file_of(os.environ).parent / _IN_STACK


@click.group()
@click.option(
    "--file",
    "file",
    envvar="BINNACLE_API_KEYS_FILE",
    default=_stacks_file,
    show_default=f"{_IN_STACK} beside the stack's file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The key file (BINNACLE_API_KEYS_FILE).",
)
@click.pass_context
def keys(context: click.Context, file: Path) -> None:
    """Make, list and revoke API keys; running services notice within a second."""
    context.obj = file


@keys.command()
@click.option("--tenant", required=True, help="Whose key it is: lower-case letters, digits, - and _.")
@click.option(
    "--scope", "scopes", multiple=True, default=("answer", "feedback"), show_default=True, help="Repeat; `*` is all."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def create(file: Path, tenant: str, scopes: tuple[str, ...], as_json: bool) -> None:
    """Make a key and print it once; only its hash is kept."""
    record, secret = create_key(file, tenant=tenant, scopes=scopes)
    if as_json:
        print_json({"id": record.id, "tenant": record.tenant, "scopes": record.scopes, "api_key": secret})
    else:
        notes.print(
            f"{record.id} for {record.tenant} ({', '.join(record.scopes)}); it is shown only now:", markup=False
        )
        console.print(secret, markup=False, soft_wrap=True)


@keys.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each key.")
@click.pass_obj
def list_(file: Path, as_json: bool) -> None:
    """List the keys, revoked ones too."""
    records = read_keys(file)
    if as_json:
        for record in records:
            print_json(record)
    else:
        rows = [[r.id, r.tenant, " ".join(r.scopes), r.created_time, r.revoked_time or ""] for r in records]
        print_table(str(file), ["id", "tenant", "scopes", "created", "revoked"], rows)


@keys.command()
@click.argument("key_id")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def revoke(file: Path, key_id: str, as_json: bool) -> None:
    """Refuse the key KEY_ID from now on."""
    record = revoke_key(file, key_id)
    if as_json:
        print_json(record)
    else:
        console.print(f"{record.id} was revoked {record.revoked_time}", markup=False)
