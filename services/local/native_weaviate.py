"""One Weaviate server on loopback and on disk: built once by Go and kept, its environment and its command line.

Used by `supervisor.py` (`make up STORE=weaviate`), by `servers.py` (`make servers`) and by tests.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from servicekit.errors import NotReady
from services.local.http_answer import answers_http

VERSION = "v1.39.0"
FOLDER = Path(__file__).parents[2] / ".tools" / "weaviate"
# From this one on, a Go fetches the newer Go that a module asks for.
LEAST_GO = (1, 21)
PORT_NAMES = ("weaviate", "weaviate.grpc", "weaviate.gossip", "weaviate.data", "weaviate.raft")
_PACKAGE = f"github.com/weaviate/weaviate/cmd/weaviate-server@{VERSION}"
_BINARY, _MARK = "weaviate-server", "version"
_HOST = "127.0.0.1"
_BUILD_WITHIN_S = 1800.0
_LOG_TAIL_LINES = 15


def is_installed() -> bool:
    """Whether the server of this version is kept."""
    mark = FOLDER / _MARK
    return (FOLDER / _BINARY).exists() and mark.exists() and mark.read_text(encoding="ascii").strip() == VERSION


def obstacle() -> str:
    """Why no Weaviate can be run here; empty if one can, though it may have to be built first (3 minutes)."""
    try:
        if not is_installed():
            _find_go()
    except NotReady as exc:
        return exc.message
    return ""


def install_weaviate() -> Path:
    """The server's program; built by Go unless it is kept (186 MB, once, about 3 minutes).

    Raises:
        NotReady: Go is missing, too old, or fails; the message ends with what it said.
    """
    if is_installed():
        return FOLDER / _BINARY
    go = _find_go()
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as built:
        _build(go, built)
        (Path(built) / _MARK).write_text(VERSION, encoding="ascii")  # last: it marks the folder as whole
        shutil.rmtree(FOLDER, ignore_errors=True)
        shutil.copytree(built, FOLDER)
    return FOLDER / _BINARY


def _find_go() -> str:
    go = shutil.which("go")
    if go is None:
        raise _missing("Go is not on the path")
    try:
        done = subprocess.run(  # go of the path
            [go, "env", "GOVERSION"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise _missing(f"{go} does not run ({exc})") from exc
    found = re.match(r"go(\d+)\.(\d+)", done.stdout)
    if found is None or (int(found[1]), int(found[2])) < LEAST_GO:
        raise _missing(f"{go} is {done.stdout.strip() or 'of an unknown version'}, too old to build Weaviate")
    return go


def _build(go: str, folder: str) -> None:
    """With the Go that is here; only where that is too old, with the one that the module asks for."""
    environment = {**os.environ, "GOBIN": folder, "CGO_ENABLED": "0"}
    told = ""
    for toolchain in ("local", "auto"):
        try:
            done = subprocess.run(  # go of the path, with arguments that are made here
                [go, "install", _PACKAGE],
                env={**environment, "GOTOOLCHAIN": toolchain},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_BUILD_WITHIN_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise NotReady(f"Go could not build Weaviate: {exc}", reason="WEAVIATE_NOT_INSTALLED") from exc
        if done.returncode == 0:
            return
        told = done.stdout
        if "requires go" not in told:
            break
    lines = told.splitlines()[-_LOG_TAIL_LINES:]
    raise NotReady("\n  ".join([f"Go could not build {_PACKAGE}:", *lines]), reason="WEAVIATE_NOT_INSTALLED")


def _missing(what: str) -> NotReady:
    return NotReady(
        f"{what}: install Go {LEAST_GO[0]}.{LEAST_GO[1]} or newer (it fetches the one that Weaviate asks for), or run "
        "`docker compose up weaviate`",
        reason="WEAVIATE_NOT_INSTALLED",
    )


@dataclass(frozen=True, slots=True)
class NativeWeaviate:
    """A server to run; `ports` are those of `PORT_NAMES`, in that order, and it takes the one after the last too."""

    title: ClassVar[str] = "Weaviate"
    data_dir: Path
    ports: tuple[int, int, int, int, int]

    @property
    def url(self) -> str:
        """As the retriever opens it."""
        return f"weaviate://{_HOST}:{self.ports[0]}?grpc_port={self.ports[1]}"

    def answers(self) -> bool:
        """Whether it serves clients now. Blocking, 2 s at most."""
        return answers_http(self.ports[0], "/v1/.well-known/ready")

    def prepare(self) -> Sequence[str]:
        """Build the server once; the command that runs it. Blocking.

        Raises:
            NotReady: Go is missing or fails.
        """
        program = install_weaviate()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        return [str(program), "--scheme", "http", "--host", _HOST, "--port", str(self.ports[0])]

    def environment(self) -> Mapping[str, str]:
        """Its settings; all that it opens but gRPC, gossip and data is on loopback alone."""
        _, grpc, gossip, data, raft = self.ports
        return {
            "PERSISTENCE_DATA_PATH": str(self.data_dir.resolve() / "data"),
            "DEFAULT_VECTORIZER_MODULE": "none",
            "ENABLE_MODULES": "",
            "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "true",
            "AUTOSCHEMA_ENABLED": "false",
            "DISABLE_TELEMETRY": "true",
            "LOG_LEVEL": "warning",
            "CLUSTER_HOSTNAME": "node1",
            "CLUSTER_IN_LOCALHOST": "true",
            "CLUSTER_ADVERTISE_ADDR": _HOST,
            "CLUSTER_GOSSIP_BIND_PORT": str(gossip),
            "CLUSTER_DATA_BIND_PORT": str(data),
            "RAFT_BOOTSTRAP_EXPECT": "1",
            "RAFT_PORT": str(raft),
            "RAFT_INTERNAL_RPC_PORT": str(raft + 1),
            "GRPC_PORT": str(grpc),
            "GO_PROFILING_DISABLE": "true",
            "PROMETHEUS_MONITORING_ENABLED": "false",
        }


def on_ports(data_dir: Path, ports: Mapping[str, int]) -> NativeWeaviate:
    """A server in this folder, on the ports of these names."""
    http, grpc, gossip, data, raft = (ports[name] for name in PORT_NAMES)
    return NativeWeaviate(data_dir, (http, grpc, gossip, data, raft))
