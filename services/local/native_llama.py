"""One llama.cpp server on loopback with a tiny model of random weights: the OpenAI API of a third party, for tests.

Built from the source that its Python package carries, once (about 12 minutes on two cores), and kept. Used by the
tests' `real_llama`. The package's own server is not used: once a caller hangs up, version 0.3.36 answers nobody.
"""

import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from servicekit.errors import NotReady
from services.local.http_answer import answers_http

_LOCKS = Path(__file__).parents[2] / "infra" / "native" / "llama"
FOLDER = Path(__file__).parents[2] / ".tools" / "llama"
MODEL = "binnacle-tiny"
WINDOW_TOKENS = 2_048
SLOTS = 4
_TOOLS, _SOURCE = _LOCKS / "requirements.lock", _LOCKS / "source.lock"
_WRITER = Path(__file__).with_name("llama_model.py")
_TARGET = "llama-server"
_HOST = "127.0.0.1"
_COMPILERS = ("c++", "g++", "clang++")
# For any processor of the kind, one file, without what a machine may lack or a test has no use for.
_ON = ("CMAKE_BUILD_TYPE=Release", "LLAMA_BUILD_SERVER=ON", "LLAMA_BUILD_TOOLS=ON")
_OFF = (
    "BUILD_SHARED_LIBS",
    "GGML_NATIVE",
    "GGML_OPENMP",
    "LLAMA_BUILD_EXAMPLES",
    "LLAMA_BUILD_TESTS",
    "LLAMA_BUILD_UI",
    "LLAMA_CURL",
    "LLAMA_OPENSSL",
    "LLAMA_USE_PREBUILT_UI",
)
_BUILD_WITHIN_S = 3600.0
_WRITE_WITHIN_S = 60.0
_LOG_TAIL_LINES = 15


def is_installed() -> bool:
    """Whether what the locks name now is kept."""
    return all((kept := FOLDER / lock.name).exists() and kept.read_bytes() == lock.read_bytes() for lock in _locks())


def obstacle() -> str:
    """Why no llama.cpp can be run here; empty if one can, though it may have to be built first (12 minutes)."""
    if is_installed() or any(map(shutil.which, _COMPILERS)):
        return ""
    return f"llama.cpp is built from source, and no compiler ({', '.join(_COMPILERS)}) is on the path"


def install_llama() -> Path:
    """The folder with the server's program and a Python that writes its model; built unless it is kept (150 MB, once).

    Raises:
        NotReady: there is no compiler, or the build fails; the message ends with what it said.
    """
    if is_installed():
        return FOLDER
    if reason := obstacle():
        raise NotReady(f"{reason}: install one", reason="LLAMA_NOT_INSTALLED")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(FOLDER)])
    _pip("install", "--requirement", str(_TOOLS))
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        shutil.copy(_build(Path(folder)), FOLDER / "bin")
    for lock in _locks():
        shutil.copy(lock, FOLDER)  # last: they mark the folder as whole
    return FOLDER


def _locks() -> tuple[Path, Path]:
    return _TOOLS, _SOURCE


def _build(folder: Path) -> Path:
    _pip("download", "--no-deps", "--no-binary", ":all:", "--dest", str(folder), "--requirement", str(_SOURCE))
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    (source,) = folder.glob("*/vendor/llama.cpp")
    out = folder / "out"
    cmake, ninja = (FOLDER / "bin" / name for name in ("cmake", "ninja"))
    switches = [*_ON, *(f"{name}=OFF" for name in _OFF), f"CMAKE_MAKE_PROGRAM={ninja}"]
    _run([str(cmake), "-G", "Ninja", "-S", str(source), "-B", str(out), *(f"-D{switch}" for switch in switches)])
    _run([str(cmake), "--build", str(out), "--target", _TARGET])
    return out / "bin" / _TARGET


def _pip(action: str, *arguments: str) -> None:
    _run([str(FOLDER / "bin" / "python"), "-m", "pip", action, "--quiet", "--require-hashes", *arguments])


def _run(argv: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_BUILD_WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise NotReady(f"llama.cpp could not be built: {exc}", reason="LLAMA_NOT_INSTALLED") from exc
    if done.returncode != 0:
        lines = done.stdout.splitlines()[-_LOG_TAIL_LINES:]
        raise NotReady("\n  ".join(["llama.cpp could not be built:", *lines]), reason="LLAMA_NOT_INSTALLED")


def free_port() -> int:
    """A port that nobody holds now."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class NativeLlama:
    """A server to run; it works on four generations at once."""

    title: ClassVar[str] = "llama"
    data_dir: Path
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        """As the generator opens it."""
        return f"openai://{_HOST}:{self.port}/v1?model={MODEL}&window={WINDOW_TOKENS}"

    def answers(self) -> bool:
        """Whether it serves clients now. Blocking, 2 s at most."""
        return answers_http(self.port, "/health")

    def prepare(self) -> Sequence[str]:
        """Build the server once and write the model; the command that runs it. Blocking.

        Raises:
            NotReady: it cannot be built.
        """
        programs = install_llama() / "bin"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        model = self.data_dir / "tiny.gguf"
        subprocess.run(
            [str(programs / "python"), str(_WRITER), str(model), str(WINDOW_TOKENS)],
            timeout=_WRITE_WITHIN_S,
            check=True,
        )
        options = {
            "model": model,
            "alias": MODEL,
            "host": _HOST,
            "port": self.port,
            "ctx-size": WINDOW_TOKENS * SLOTS,
            "parallel": SLOTS,
            "threads": 1,
        }
        argv = [str(programs / _TARGET), "--metrics"]
        for name, value in options.items():
            argv += [f"--{name}", str(value)]
        return argv

    def environment(self) -> Mapping[str, str]:
        """Nothing beyond what it is started with."""
        return {}
