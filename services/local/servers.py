"""`python -m services.local.servers start|stop`: real servers for a person or for tests, left running.

What `make servers` runs. It takes what the machine can do: a native Kafka where Java and Maven are there, else the
containers of `docker-compose.yml`. Weaviate is to join here with its adapter.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no stubs

from servicekit.errors import BinnacleError, NotReady
from services.local.layout import HOST, choose_ports
from services.local.native_install import obstacle
from services.local.native_kafka import NativeKafka
from services.local.native_server import start_broker

_COMPOSE_KAFKA = f"{HOST}:19092"  # the HOST listener in docker-compose.yml
_COMPOSE_WITHIN_S = 600.0
_STOP_WITHIN_S = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """0: done, 2: this machine can run no server."""
    parser = argparse.ArgumentParser(prog="python -m services.local.servers", description=__doc__)
    parser.add_argument("action", choices=("start", "stop"))
    parser.add_argument("--data", type=Path, default=Path(".var/servers"), help="folder (default: .var/servers)")
    options = parser.parse_args(arguments)
    folder = options.data / "kafka"
    try:
        if options.action == "start":
            _say(f"Kafka  {_start(folder)}")
            _say("the stack on it: .venv/bin/python -m services.local --kafka ADDRESS; stop: make stop-servers")
        else:
            _say("stopped" if _stop(folder) else "no native Kafka runs; containers: docker compose down")
    except BinnacleError as exc:
        _say(exc.message)
        return 2
    return 0


def _start(folder: Path) -> str:
    """The address of a Kafka, started unless it runs.

    Raises:
        NotReady: neither Java and Maven nor Docker are there, or what was started does not answer.
    """
    if reason := obstacle():
        return _start_container(reason)
    ports = _ports(folder)
    native = NativeKafka(folder, *ports)
    if _running(folder) is None:
        process = start_broker(native)
        (folder / "pid").write_text(str(process.pid), encoding="ascii")
    return native.address


def _ports(folder: Path) -> tuple[int, int]:
    """Those of the last start, so that an address stays good; else free ones."""
    kept = folder / "ports.json"
    if kept.exists():
        port, controller_port = json.loads(kept.read_text(encoding="ascii"))
        return port, controller_port
    ports = choose_ports({}, free=True)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = ports["kafka"], ports["kafka.controller"]
    kept.write_text(json.dumps(chosen), encoding="ascii")
    return chosen


def _running(folder: Path) -> psutil.Process | None:
    """The broker of this folder; its process id may be somebody else's by now."""
    try:
        process = psutil.Process(int((folder / "pid").read_text(encoding="ascii")))
        ours = str(folder / "server.properties") in process.cmdline()
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


def _start_container(reason: str) -> str:
    docker = shutil.which("docker")
    if docker is None:
        raise NotReady(f"{reason}; Docker is not here either", reason="KAFKA_NOT_INSTALLED")
    _say(f"{reason}: taking the container")
    try:
        subprocess.run(  # noqa: S603  # docker of the path, with arguments that are made here
            [docker, "compose", "up", "--detach", "--wait", "kafka"], timeout=_COMPOSE_WITHIN_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise NotReady(f"docker compose could not start Kafka: {exc}", reason="KAFKA_NOT_INSTALLED") from exc
    return _COMPOSE_KAFKA


def _say(line: str) -> None:
    sys.stderr.write(f"» {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
