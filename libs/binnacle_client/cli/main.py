"""The `binnacle` command: its commands, and how an error becomes an exit status."""

import os
import sys

import click

from binnacle_client.cli import asking, completing, dead_letters, documents, ingesting, keys, operating, tailing, topics
from binnacle_client.cli.output import notes
from servicekit.errors import (
    BackendTimeout,
    BackendUnavailable,
    BinnacleError,
    InvalidRequest,
    NotFound,
    NotReady,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
)

_EXIT_STATUS: tuple[tuple[type[BinnacleError], int], ...] = (
    (InvalidRequest, 3),
    (NotFound, 3),
    (Unauthenticated, 4),
    (PermissionDenied, 4),
    (BackendUnavailable, 5),
    (BackendTimeout, 5),
    (NotReady, 5),
    (Overloaded, 5),
)
_INTERRUPTED = 130
_PIPE_CLOSED = 141


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 done · 1 failed · 2 wrong usage · 3 refused as invalid or not found · 4 no or wrong key · "
    "5 unavailable, overloaded or out of time · 6 some documents refused, the stack is not healthy, a window "
    "is not whole, or topics are not as registered.",
)
@click.version_option(package_name="binnacle")
def cli() -> None:
    """Ask, fill and watch a Binnacle.

    Finds it by BINNACLE_TARGET and BINNACLE_API_KEY, or by the local stack of this folder (`make up`).
    """


for _command in (
    *asking.COMMANDS,
    *ingesting.COMMANDS,
    *documents.COMMANDS,
    *operating.COMMANDS,
    *completing.COMMANDS,
    *tailing.COMMANDS,
    *topics.COMMANDS,
    dead_letters.dlq,
    keys.keys,
):
    cli.add_command(_command)


def main() -> None:
    """Run the command; expected errors are one line on standard error."""
    try:
        status = cli.main(standalone_mode=False)  # an `Exit` inside comes back as its status
        sys.exit(status if isinstance(status, int) else 0)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:  # `binnacle … | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_PIPE_CLOSED)
    except BinnacleError as exc:
        notes.print(f"binnacle: {exc.message} [{exc.reason}]", markup=False)
        sys.exit(next((status for kind, status in _EXIT_STATUS if isinstance(exc, kind)), 1))
