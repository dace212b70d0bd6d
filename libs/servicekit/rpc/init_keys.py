"""`python -m servicekit.rpc.init_keys --directory DIR`: every key file that a deployment needs, made once.

Run by the Compose file's `keys` service before the others; the supervisor does the same for the local stack.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from servicekit.rpc.api_keys import create_key
from servicekit.rpc.keyfiles import ensure_hmac_key, ensure_token_keys

TOKEN_PRIVATE_KEY = "token.key"  # noqa: S105  # a file's name
TOKEN_PUBLIC_KEY = "token.pub"  # noqa: S105  # a file's name
REQUEST_ID_KEY = "request_ids.key"
VAULT_KEY = "vault.key"
API_KEYS = "api_keys.json"


def init_keys(directory: Path) -> None:
    """Make the token pair, the request-id key and the vault's key where they are missing, for their owner alone."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    ensure_token_keys(directory / TOKEN_PRIVATE_KEY, directory / TOKEN_PUBLIC_KEY)
    ensure_hmac_key(directory / REQUEST_ID_KEY)
    ensure_hmac_key(directory / VAULT_KEY)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is missing; with no API key yet, make one for `--tenant` and print it, this once."""
    parser = argparse.ArgumentParser(prog="python -m servicekit.rpc.init_keys", description=__doc__)
    parser.add_argument("--directory", type=Path, required=True, help="folder of the key files")
    parser.add_argument("--tenant", default="default", help="tenant of the first API key (default: default)")
    parser.add_argument("--owner", type=int, help="user id that shall own the files")
    options = parser.parse_args(arguments)
    init_keys(options.directory)
    if not (options.directory / API_KEYS).exists():
        _, secret = create_key(options.directory / API_KEYS, tenant=options.tenant, scopes=("*",))
        sys.stdout.write(f"first API key, tenant {options.tenant}, all scopes, shown only now: {secret}\n")
    if options.owner is not None:
        for path in (options.directory, *options.directory.iterdir()):
            os.chown(path, options.owner, -1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
