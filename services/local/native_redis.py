"""One Redis server on loopback, in memory: found on the path, its command line. Used by tests and `make servers`."""

import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from servicekit.errors import NotReady

_PROGRAM = "redis-server"
_HOST = "127.0.0.1"
_ANSWER_S = 2.0


def obstacle() -> str:
    """Why no Redis can be run here; empty if one can."""
    return "" if shutil.which(_PROGRAM) else _missing().message


def find_redis() -> str:
    """The server's program.

    Raises:
        NotReady: it is not on the path.
    """
    program = shutil.which(_PROGRAM)
    if program is None:
        raise _missing()
    return program


def _missing() -> NotReady:
    return NotReady(
        f"{_PROGRAM} is not on the path: install it (Debian: apt-get install redis-server), or run "
        "`docker compose up redis`",
        reason="REDIS_NOT_INSTALLED",
    )


@dataclass(frozen=True, slots=True)
class NativeRedis:
    """A server to run; it keeps nothing beyond its process, and asks for `password` where one is given."""

    title: ClassVar[str] = "Redis"
    data_dir: Path
    port: int
    password: str = ""

    @property
    def url(self) -> str:
        """As a service opens it."""
        return f"redis://{_HOST}:{self.port}/0"

    def answers(self) -> bool:
        """Whether it takes commands now (or asks for its password). Blocking, 2 s at most."""
        try:
            with socket.create_connection((_HOST, self.port), timeout=_ANSWER_S) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def prepare(self) -> Sequence[str]:
        """The command that runs it.

        Raises:
            NotReady: it is not on the path.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        settings = self.data_dir / "redis.conf"
        lines = [f"bind {_HOST}", f"port {self.port}", 'save ""', "appendonly no", f'dir "{self.data_dir.resolve()}"']
        if self.password:
            lines.append(f'requirepass "{self.password}"')
        settings.write_text("\n".join(lines) + "\n", encoding="utf-8")
        settings.chmod(0o600)
        return [find_redis(), str(settings.resolve())]

    def environment(self) -> Mapping[str, str]:
        """Nothing beyond this process's own."""
        return {}


def on_ports(data_dir: Path, ports: Mapping[str, int]) -> NativeRedis:
    """A server in this folder, on the port of this name."""
    return NativeRedis(data_dir, ports["redis"])
