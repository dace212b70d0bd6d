"""`python -m services.local.servers start|stop`: real servers for a person or for tests, left running.

What `make servers` runs. It takes what the machine can do: a native Kafka where Java and Maven are there, a native
Weaviate where Go is, a native Redis where it is installed, else the containers of `docker-compose.yml`.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # ships no stubs

from servicekit.errors import BinnacleError, NotReady
from services.local import native_install, native_redis, native_weaviate
from services.local.layout import HOST, choose_ports
from services.local.native_kafka import NativeKafka
from services.local.native_redis import NativeRedis
from services.local.native_server import start_server
from services.local.native_weaviate import NativeWeaviate

_COMPOSE_WITHIN_S = 600.0
_STOP_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class _Kind:
    """One of the servers: what keeps it from running natively, how to make it, and where the container listens."""

    name: str
    obstacle: Callable[[], str]
    make: Callable[[Path, Mapping[str, int]], NativeKafka | NativeWeaviate | NativeRedis]
    address: Callable[[Any], str]
    ports: tuple[str, ...]
    container: str


_KINDS = (
    _Kind(
        "kafka",
        native_install.obstacle,
        lambda folder, ports: NativeKafka(folder, ports["kafka"], ports["kafka.controller"]),
        lambda native: str(native.address),
        ("kafka", "kafka.controller"),
        f"{HOST}:19092",
    ),
    _Kind(
        "weaviate",
        native_weaviate.obstacle,
        native_weaviate.on_ports,
        lambda native: str(native.url),
        native_weaviate.PORT_NAMES,
        f"weaviate://{HOST}:18080?grpc_port=15051",
    ),
    _Kind(
        "redis",
        native_redis.obstacle,
        native_redis.on_ports,
        lambda native: str(native.url),
        ("redis",),
        f"redis://{HOST}:16379/0",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: done, 2: this machine can run none, or not all, of the servers."""
    parser = argparse.ArgumentParser(prog="python -m services.local.servers", description=__doc__)
    parser.add_argument("action", choices=("start", "stop"))
    parser.add_argument("--data", type=Path, default=Path(".var/servers"), help="folder (default: .var/servers)")
    parser.add_argument("--only", choices=[kind.name for kind in _KINDS], help="one of them (default: all)")
    options = parser.parse_args(arguments)
    failed = False
    for kind in _KINDS:
        if options.only in (None, kind.name):
            try:
                _act(options.action, kind, options.data / kind.name)
            except BinnacleError as exc:
                _say(exc.message)
                failed = True
    if options.action == "start" and not failed:
        _say("the stack on them: .venv/bin/python -m services.local --kafka ADDRESS --vector-store URL")
        _say("the tests on them: BINNACLE_TEST_KAFKA=ADDRESS BINNACLE_TEST_WEAVIATE=URL BINNACLE_TEST_REDIS=URL")
        _say("stop them: make stop-servers")
    return 2 if failed else 0


def _act(action: str, kind: _Kind, folder: Path) -> None:
    if action == "start":
        _say(f"{kind.name:<9}{_start(kind, folder)}")
    else:
        _say(f"{kind.name:<9}{'stopped' if _stop(folder) else 'none runs natively; containers: docker compose down'}")


def _start(kind: _Kind, folder: Path) -> str:
    """The address of a server, started unless it runs.

    Raises:
        NotReady: neither what it needs natively nor Docker is there, or what was started does not answer.
    """
    if reason := kind.obstacle():
        return _start_container(kind, reason)
    native = kind.make(folder, _ports(kind, folder))
    if _running(folder) is None:
        process = start_server(native)
        (folder / "pid").write_text(f"{process.pid} {psutil.Process(process.pid).create_time()}", encoding="ascii")
    return kind.address(native)


def _ports(kind: _Kind, folder: Path) -> Mapping[str, int]:
    """Those of the last start, so that an address stays good; else free ones."""
    kept = folder / "ports.json"
    if kept.exists():
        ports = json.loads(kept.read_text(encoding="ascii"))
        if isinstance(ports, dict):
            return ports
    folder.mkdir(parents=True, exist_ok=True)
    free = choose_ports({}, free=True)
    chosen = {name: free[name] for name in kind.ports}
    kept.write_text(json.dumps(chosen), encoding="ascii")
    return chosen


def _running(folder: Path) -> psutil.Process | None:
    """The server of this folder; its process id may be somebody else's by now."""
    try:
        pid, started_s = (folder / "pid").read_text(encoding="ascii").split()
        process = psutil.Process(int(pid))
        ours = abs(process.create_time() - float(started_s)) < 1.0
    except (OSError, ValueError, psutil.Error):
        return None
    return process if ours else None


def _stop(folder: Path) -> bool:
    process = _running(folder)
    if process is None:
        return False
    process.terminate()
    try:
        process.wait(_STOP_WITHIN_S)
    except psutil.TimeoutExpired:
        process.kill()
    return True


def _start_container(kind: _Kind, reason: str) -> str:
    docker = shutil.which("docker")
    if docker is None:
        raise NotReady(f"{reason}; Docker is not here either", reason=f"{kind.name.upper()}_NOT_INSTALLED")
    _say(f"{reason}: taking the container")
    try:
        subprocess.run(  # noqa: S603  # docker of the path, with arguments that are made here
            [docker, "compose", "up", "--detach", "--wait", kind.name], timeout=_COMPOSE_WITHIN_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise NotReady(
            f"docker compose could not start {kind.name}: {exc}", reason=f"{kind.name.upper()}_NOT_INSTALLED"
        ) from exc
    return kind.container


def _say(line: str) -> None:
    sys.stderr.write(f"» {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
