"""Checks policy files and prints what they come to: `python -m services.guardrail.policy_check DIR [--json]`.

Exit status 1 where a file cannot be followed; each mistake is told as `file:line: …`. Run before files go out.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from servicekit.telemetry.logging import configure_logging
from services.guardrail.detectors.catalogue import all_detectors
from services.guardrail.policy_file import PolicyError
from services.guardrail.policy_store import PolicyStore


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the policy of each tenant and route, as it would be in force."""
    parser = argparse.ArgumentParser(prog="services.guardrail.policy_check", description=__doc__)
    parser.add_argument("directory", type=Path, help="the folder that policy_dir names: <tenant>.yaml, default.yaml")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of YAML documents")
    options = parser.parse_args(arguments)
    store = PolicyStore(options.directory, detectors=all_detectors())
    try:
        store.load()
    except PolicyError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    told = list(_told(store))
    if options.json:
        sys.stdout.write(json.dumps({"policies": told}) + "\n")
    else:
        yaml.safe_dump_all(told, sys.stdout, sort_keys=False, explicit_start=True)
    return 0


def _told(store: PolicyStore) -> Iterator[dict[str, Any]]:
    for tenant, routes in store.resolved.items():
        for route, one in routes.items():
            told: dict[str, Any] = {
                "tenant": tenant,
                "route": route,
                "version": one.policy.version,
                **one.policy.described(),
            }
            if one.candidate is not None:
                told["candidate"] = {"version": one.candidate.version, **one.candidate.described()}
            yield told


if __name__ == "__main__":
    configure_logging(service="policy_check")  # to standard error: what is printed is the policies alone
    sys.exit(main())
