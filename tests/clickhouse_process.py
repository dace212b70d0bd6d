"""A real embedded ClickHouse front for tests: started on a free port, killed or stopped at will."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_START_S = 30
_STOP_S = 20


@dataclass
class FrontProcess:
    """One process of `services.local.clickhouse_front`; `start` again after a stop reuses port and data."""

    data: Path
    environment: Mapping[str, str]
    arguments: Sequence[str] = ()
    port: int = 0
    process: subprocess.Popen[str] | None = None

    @property
    def http_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def store_url(self) -> str:
        """The URL of its database for the analytics store."""
        return f"clickhouse://127.0.0.1:{self.port}/binnacle"

    def start(self) -> None:
        """Start it and wait for its line of readiness."""
        command = [sys.executable, "-m", "services.local.clickhouse_front"]
        command += ["--port", str(self.port), "--data", str(self.data), *self.arguments]
        environment = {**os.environ, **self.environment}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.match(r"listening on http://127\.0\.0\.1:(\d+) ", line)
        assert match, f"the front said {line!r} instead of where it listens"
        self.port = int(match[1])

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(_STOP_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return status


@contextmanager
def running_front(data: Path, *arguments: str, **environment: str) -> Iterator[FrontProcess]:
    """A front on `data`, started with further `arguments`; killed at the end where it still runs."""
    front = FrontProcess(data=data, environment=environment, arguments=arguments)
    front.start()
    try:
        yield front
    finally:
        if front.process is not None:
            front.kill()
