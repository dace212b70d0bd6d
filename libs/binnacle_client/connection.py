"""Where a Binnacle is and with which key it is asked. Pure; read from the environment or from a stack's file."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from servicekit.errors import InvalidRequest, Unauthenticated

DEFAULT_STACK_FILE = Path(".var/local/stack.json")
SERVICES = ("gateway", "retriever", "generator", "guardrail", "evaluator", "drift_monitor", "analytics")
DEFAULT_PORTS = {name: 7700 + offset for offset, name in enumerate(SERVICES)}


def stack_file_of(environ: Mapping[str, str]) -> Path:
    """The file of the local stack: `BINNACLE_STACK_FILE`, or where `make up` keeps it."""
    return Path(environ.get("BINNACLE_STACK_FILE", DEFAULT_STACK_FILE))


@dataclass(frozen=True, slots=True)
class Connection:
    """Addresses and key.

    `targets` maps a service's name to `host:port`; a service that is not named is sought on the gateway's host at
    its default port (7700 to 7706).
    """

    targets: Mapping[str, str]
    api_key: str
    kafka_bootstrap_servers: str = ""
    clickhouse_url: str = ""
    openai_base_url: str = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read `BINNACLE_TARGET`, `BINNACLE_API_KEY` and `BINNACLE_<SERVICE>_TARGET`, or else the stack's file.

        Raises:
            Unauthenticated: there is no key in either place.
        """
        env = os.environ if environ is None else environ
        stack_file = stack_file_of(env)
        found = cls.from_stack_file(stack_file) if stack_file.exists() else cls(targets={}, api_key="")
        named = {name: value for name in SERVICES if (value := env.get(f"BINNACLE_{name.upper()}_TARGET"))}
        if target := env.get("BINNACLE_TARGET"):
            named["gateway"] = target
            if "gateway" in found.targets and found.targets["gateway"] != target:
                found = cls(targets={}, api_key="")  # another Binnacle than the local one
        connection = replace(
            found,
            targets={**found.targets, **named},
            api_key=env.get("BINNACLE_API_KEY", found.api_key),
            kafka_bootstrap_servers=env.get("KAFKA_BOOTSTRAP_SERVERS", found.kafka_bootstrap_servers),
            clickhouse_url=env.get("CLICKHOUSE_URL", found.clickhouse_url),
            openai_base_url=env.get("OPENAI_BASE_URL", found.openai_base_url),
        )
        if not connection.api_key:
            raise Unauthenticated(
                "BINNACLE_API_KEY is not set and no local stack is running here: start one with `make up`, or set "
                "BINNACLE_TARGET and BINNACLE_API_KEY"
            )
        return connection

    @classmethod
    def from_stack_file(cls, path: Path) -> Self:
        """Read what a local stack wrote about itself when it started."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                targets=dict(document["targets"]),
                api_key=document["api_key"],
                kafka_bootstrap_servers=document["kafka_bootstrap_servers"],
                clickhouse_url=document["clickhouse_url"],
                openai_base_url=document["openai_base_url"],
            )
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise InvalidRequest(
                f"{path} is not a stack file ({type(exc).__name__}: {exc}): start the stack again", field="stack_file"
            ) from exc

    def target(self, service: str) -> str:
        """The `host:port` of a service."""
        if service in self.targets:
            return self.targets[service]
        host = self.targets.get("gateway", "127.0.0.1:7700").rpartition(":")[0]
        return f"{host}:{DEFAULT_PORTS[service]}"

    def exports(self) -> dict[str, str]:
        """The shell variables that other programs read."""
        variables = {
            "BINNACLE_TARGET": self.target("gateway"),
            "BINNACLE_API_KEY": self.api_key,
            "OPENAI_BASE_URL": self.openai_base_url,
            "OPENAI_API_KEY": self.api_key,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka_bootstrap_servers,
            "CLICKHOUSE_URL": self.clickhouse_url,
        }
        others = {f"BINNACLE_{name.upper()}_TARGET": self.target(name) for name in SERVICES if name != "gateway"}
        return {name: value for name, value in (variables | others).items() if value}
