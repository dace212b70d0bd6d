"""The whole stack as real processes, once for all end-to-end tests; started by its own command line."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from binnacle_client.connection import Connection

_START_WITHIN_S = 90.0
_STOP_WITHIN_S = 60.0
_DOCUMENTS = {
    "harbour.md": "# Harbour rules\n\nThe harbour master opens the lock gate at six in the morning. "
    "Boats longer than twelve metres moor at the eastern quay.\n\n## Fees\n\nMooring costs nine euros a night.\n",
    "compass.txt": "A binnacle holds the ship's compass. The quadrantal spheres beside it correct for soft iron. "
    "The deviation card lists the remaining error for each heading.\n",
    "galley.html": "<html><body><h1>Galley</h1><p>The cook serves breakfast at seven bells. "
    "Fresh bread is baked on Tuesdays and Fridays.</p></body></html>",
}


@dataclass(frozen=True)
class RunningStack:
    """A stack that runs for the tests."""

    connection: Connection
    data_dir: Path
    supervisor_pid: int

    @property
    def environ(self) -> dict[str, str]:
        """The environment in which `binnacle` finds this stack."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BINNACLE_")}
        return {**kept, "BINNACLE_STACK_FILE": str(self.data_dir / "stack.json")}

    def service_pid(self, name: str) -> int:
        """The process id of a service, as the operating system sees it."""
        return self.pid_of(f"services.{name}")

    def pid_of(self, argument: str) -> int:
        """The process id of the stack's process with that argument on its command line."""
        for child in psutil.Process(self.supervisor_pid).children():
            with contextlib.suppress(psutil.Error):  # a zombie, or gone meanwhile
                if argument in child.cmdline():
                    return child.pid
        raise LookupError(f"no process runs {argument}")

    def binnacle(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the `binnacle` command against this stack."""
        return subprocess.run(
            [sys.executable, "-m", "binnacle_client.cli", *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=check,
        )

    def binnacle_json(self, *arguments: str) -> list[dict[str, Any]]:
        """The JSON lines that a command with `--json` prints."""
        return [json.loads(line) for line in self.binnacle(*arguments, "--json").stdout.splitlines()]


def start_stack(data_dir: Path, *arguments: str) -> Iterator[RunningStack]:
    """Start a stack, wait until it has said where it is, and stop it at the end."""
    log = data_dir.parent / "supervisor.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.local", "--free-ports", "--data", str(data_dir), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        stack_file = data_dir / "stack.json"
        deadline = time.monotonic() + _START_WITHIN_S
        while not stack_file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                pytest.fail(f"the stack did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-4000:]}")
            time.sleep(0.1)
        try:
            yield RunningStack(Connection.from_stack_file(stack_file), data_dir, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                status = process.wait(_STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
        assert status == 0, log.read_text(encoding="utf-8", errors="replace")[-4000:]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The stack with three small documents in it."""
    yield from filled_stack(tmp_path_factory.mktemp("stack"))


def filled_stack(folder: Path, *arguments: str) -> Iterator[RunningStack]:
    """A stack, started with the arguments, with three small documents in it."""
    documents = folder / "documents"
    documents.mkdir()
    for name, text in _DOCUMENTS.items():
        (documents / name).write_text(text, encoding="utf-8")
    for running in start_stack(folder / "data", *arguments):
        running.binnacle("ingest", str(documents))
        yield running
