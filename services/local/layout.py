"""Where everything of a local stack is: ports, addresses, folders, keys and each process's settings.

Pure but for choosing free ports and writing keys; used by `supervisor.py` and by the stack's tests.
"""

import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servicekit.errors import InvalidRequest
from servicekit.rpc.api_keys import create_key
from servicekit.rpc.init_keys import API_KEYS, REQUEST_ID_KEY, TOKEN_PRIVATE_KEY, TOKEN_PUBLIC_KEY, init_keys
from servicekit.rpc.keyfiles import write_private

HOST = "127.0.0.1"
SERVICES = ("gateway", "retriever", "generator", "guardrail", "evaluator", "drift_monitor", "analytics")
PREFERRED_PORTS: Mapping[str, int] = {
    **{name: 7700 + offset for offset, name in enumerate(SERVICES)},
    **{f"{name}.metrics": 8700 + offset for offset, name in enumerate(SERVICES)},
    "gateway.http": 7780,
    "clickhouse": 8123,
    "kafka": 9092,
    "kafka.controller": 9093,
    "redis": 6379,
    "weaviate": 8080,
    "weaviate.grpc": 50051,
    "weaviate.gossip": 7946,
    "weaviate.data": 7947,
    "weaviate.raft": 8300,
}
# Weaviate takes the next port as well: its node looks for itself there.
_PAIRED = ("weaviate.raft",)
TENANT = "local"


@dataclass(frozen=True, slots=True)
class Ports:
    """A port for every listener of the stack, by name (`gateway`, `gateway.http`, `gateway.metrics`, …)."""

    by_name: Mapping[str, int]
    moved: tuple[str, ...]

    def __getitem__(self, name: str) -> int:
        return self.by_name[name]

    def address(self, name: str) -> str:
        """`host:port` of a listener."""
        return f"{HOST}:{self.by_name[name]}"


def choose_ports(given: Mapping[str, int], *, free: bool = False) -> Ports:
    """The given port, else the usual one while nobody holds it (and `free` is not asked for), else a free one.

    Raises:
        InvalidRequest: a given port has an unknown name or is taken.
    """
    for name, port in given.items():
        if name not in PREFERRED_PORTS:
            raise InvalidRequest(f"--port: {name!r} is none of {', '.join(PREFERRED_PORTS)}", field="port")
        if port and not _is_free(port):
            raise InvalidRequest(f"--port {name}={port}: taken; name another, or 0 for a free one", field="port")
    chosen: dict[str, int] = {}
    moved = []
    for name, preferred in PREFERRED_PORTS.items():
        if given.get(name):
            chosen[name] = given[name]
        elif (
            not free and name not in given and _is_free(preferred) and (name not in _PAIRED or _is_free(preferred + 1))
        ):
            chosen[name] = preferred
        else:
            chosen[name] = _free_port(set(chosen.values()), paired=name in _PAIRED)
            moved.append(name)
    return Ports(chosen, () if free else tuple(name for name in moved if name not in given))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _free_port(taken: set[int], *, paired: bool = False) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
        if port not in taken and (not paired or (port + 1 not in taken and _is_free(port + 1))):
            return port


@dataclass(frozen=True, slots=True)
class Layout:
    """One stack on this machine; `data_dir` holds all that it keeps."""

    data_dir: Path
    ports: Ports
    overrides: Mapping[str, str]

    @property
    def log_dir(self) -> Path:
        """One log file for each process."""
        return self.data_dir / "logs"

    @property
    def stack_file(self) -> Path:
        """What `binnacle env` reads."""
        return self.data_dir / "stack.json"

    @property
    def clickhouse_url(self) -> str:
        """The embedded ClickHouse, as the services open it."""
        return f"clickhouse://{self.ports.address('clickhouse')}/binnacle"

    def secret(self, name: str) -> Path:
        """The file of a key."""
        return self.data_dir / "secrets" / name

    def prepare(self) -> str:
        """Make the folders and, once, the keys; returns the API key of the stack's own tenant."""
        for folder in (self.data_dir, self.log_dir, self.data_dir / "secrets"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        init_keys(self.data_dir / "secrets")
        plain = self.secret("local_api_key")
        if not plain.exists():
            _, secret = create_key(self.secret(API_KEYS), tenant=TENANT, scopes=("*",))
            write_private(plain, secret.encode("ascii"))
        return plain.read_text(encoding="ascii")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have the folder to oneself, until the block or the process ends: a second stack would ruin both.

        Raises:
            InvalidRequest: another stack has it.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.data_dir / ".lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InvalidRequest(
                    f"{self.data_dir} is in use by a stack that is running: stop that one, "
                    "or choose another folder with --data",
                    field="data",
                ) from None
            yield

    def write_stack_file(self, *, api_key: str, kafka: str) -> None:
        """Tell other programs where everything is; readable by this user alone."""
        document = {
            "targets": {name: self.ports.address(name) for name in SERVICES},
            "api_key": api_key,
            "kafka_bootstrap_servers": kafka,
            "clickhouse_url": f"http://{self.ports.address('clickhouse')}",
            "openai_base_url": f"http://{self.ports.address('gateway.http')}/v1",
            "supervisor_pid": os.getpid(),
        }
        write_private(self.stack_file, f"{json.dumps(document, indent=1)}\n".encode())

    def environment(self, service: str, *, event_bus_url: str) -> dict[str, str]:
        """The environment of one service's process: this process's own, with the service's settings."""
        common = {
            "host": HOST,
            "port": str(self.ports[service]),
            "metrics_port": str(self.ports[f"{service}.metrics"]),
            "event_bus_url": event_bus_url,
            "state_dir": str(self.data_dir / service),
            "api_keys_file": str(self.secret(API_KEYS)),
            "token_public_key_file": str(self.secret(TOKEN_PUBLIC_KEY)),
        }
        prefix = f"BINNACLE_{service.upper()}__"
        settings = {f"{prefix}{name.upper()}": value for name, value in (common | self._own(service)).items()}
        return {**inherited_environment(), **settings, **self._overrides(prefix)}

    def _overrides(self, prefix: str) -> dict[str, str]:
        return {name: value for name, value in self.overrides.items() if name.startswith(prefix)}

    def _own(self, service: str) -> dict[str, str]:
        match service:
            case "gateway":
                return {
                    "http_port": str(self.ports["gateway.http"]),
                    "retriever_target": self.ports.address("retriever"),
                    "generator_target": self.ports.address("generator"),
                    "guardrail_target": self.ports.address("guardrail"),
                    "token_private_key_file": str(self.secret(TOKEN_PRIVATE_KEY)),
                    "request_id_key_file": str(self.secret(REQUEST_ID_KEY)),
                }
            case "guardrail":
                return {"allow_memory_vault": "true"}
            case "retriever":
                return {"vector_store_url": f"lancedb://{self.data_dir.resolve()}/lancedb"}
            case "evaluator":
                return {
                    "retriever_target": self.ports.address("retriever"),
                    "token_private_key_file": str(self.secret(TOKEN_PRIVATE_KEY)),
                }
            case "drift_monitor" | "analytics":
                return {"analytics_store_url": self.clickhouse_url}
            case _:
                return {}


def inherited_environment() -> dict[str, str]:
    """This process's environment without settings of Binnacle, which the layout decides, unbuffered."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BINNACLE_")}
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
