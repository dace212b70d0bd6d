"""The processes that the benchmark of the generator measures: a contract server as the engine, the generator, a relay.

Used by `generator.py`; everything is on loopback, settings come by environment, and each is stopped by its process id.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from servicekit.rpc.api_keys import create_key

WINDOW_TOKENS = 8_192
_START_S = 60.0


@dataclass(frozen=True, slots=True)
class Stand:
    """Where they listen, and their processes."""

    engine_port: int
    engine: psutil.Process
    relay_target: str
    relay: psutil.Process
    generator_target: str
    generator: psutil.Process
    api_key: str

    def turn(self, **dials: Any) -> None:
        """Turn the engine's dials."""
        url = f"http://127.0.0.1:{self.engine_port}/dials"
        request = urllib.request.Request(url, json.dumps(dials).encode(), method="PUT")
        with urllib.request.urlopen(request, timeout=10):
            pass


@contextmanager
def open_stand(folder: Path) -> Iterator[Stand]:
    """Start them, wait until they listen, and stop them at the end; the generator logs into `folder`."""
    keys = folder / "api_keys.json"
    _, secret = create_key(keys, tenant="bench", scopes=("*",))
    engine_log, relay_log, log = folder / "engine.log", folder / "relay.log", folder / "generator.log"
    window = ["--max-total-tokens", str(WINDOW_TOKENS), "--max-input-tokens", str(WINDOW_TOKENS - 1)]
    with _process([sys.executable, "-m", "servicekit.testing.tgi_server", *window], {}, engine_log) as engine:
        engine_port = int(_line(engine_log, "contract server at").rsplit(":", 1)[-1].strip("/ \n"))
        settings = {
            "BINNACLE_GENERATOR__PORT": "0",
            "BINNACLE_GENERATOR__METRICS_PORT": "0",
            "BINNACLE_GENERATOR__API_KEYS_FILE": str(keys),
            "BINNACLE_GENERATOR__STATE_DIR": str(folder / "state"),
            "BINNACLE_GENERATOR__DEFAULT_ENGINE_URL": f"tgi://127.0.0.1:{engine_port}",
            "BINNACLE_GENERATOR__LOG_FORMAT": "json",
        }
        relay_command = [sys.executable, "-m", "tests.bench._generator_relay", str(engine_port)]
        with (
            _process(relay_command, {}, relay_log) as relay,
            _process([sys.executable, "-m", "services.generator"], settings, log) as generator,
        ):
            relay_port = _line(relay_log, "relay at").split()[-1]
            started = json.loads(_line(log, '"service.ready"'))
            yield Stand(
                engine_port,
                psutil.Process(engine.pid),
                f"127.0.0.1:{relay_port}",
                psutil.Process(relay.pid),
                f"127.0.0.1:{started['port']}",
                psutil.Process(generator.pid),
                secret,
            )


def cpu_s(process: psutil.Process) -> float:
    """Seconds of CPU that a process has had."""
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def _process(argv: list[str], settings: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BINNACLE_")}
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output, env={**environment, **settings})
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def _line(log: Path, mark: str) -> str:
    """The line of a log that has `mark`, once it is there."""
    ends = time.monotonic() + _START_S
    while time.monotonic() < ends:
        for line in log.read_text().splitlines(keepends=True):
            if mark in line and line.endswith("\n"):
                return line
        time.sleep(0.05)
    raise RuntimeError(f"nothing said {mark} in {_START_S:g} s:\n{log.read_text()}")
