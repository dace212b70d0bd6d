"""Gets an Apache Kafka broker from its Maven artifacts, once, and keeps it; says what is missing to do so.

Blocking; used by `servers.py` (`make servers`), by `__main__.py` (`make up`) and by the tests' broker.
"""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from servicekit.errors import NotReady

_ROOT = Path(__file__).parents[2]
POM = _ROOT / "infra" / "native" / "kafka" / "pom.xml"
LIBRARIES = _ROOT / ".tools" / "kafka"
LEAST_JAVA = 17
_WITHIN_S = 600.0
_LOG_TAIL_LINES = 15


def find_java() -> str:
    """The `java` to run Kafka with, of `JAVA_HOME` or else of the path.

    Raises:
        NotReady: there is none, or it is older than Kafka takes.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if not java:
        raise _missing(f"Java {LEAST_JAVA} or newer is not on the path")
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=True).stderr
    except (OSError, subprocess.SubprocessError) as exc:
        raise _missing(f"{java} does not run ({exc})") from exc
    found = re.search(r'version "(\d+)', told)
    if found is None or int(found.group(1)) < LEAST_JAVA:
        raise _missing(f"Java {LEAST_JAVA} or newer is needed, {java} says {told.splitlines()[:1]}")
    return java


def is_installed() -> bool:
    """Whether what the project file names now is kept already."""
    kept = LIBRARIES / POM.name
    return kept.exists() and kept.read_bytes() == POM.read_bytes()


def obstacle() -> str:
    """Why no broker can be run here; empty if one can, though it may have to be installed first."""
    try:
        find_java()
    except NotReady as exc:
        return exc.message
    if not is_installed() and not shutil.which("mvn"):
        return _missing("Maven is not on the path").message
    return ""


def install_kafka() -> Path:
    """The folder of the broker's libraries; fetched by Maven unless they are kept (44 MB, once).

    Raises:
        NotReady: Java or Maven is missing, or Maven fails; the message ends with what it said.
    """
    find_java()
    if is_installed():
        return LIBRARIES
    maven = shutil.which("mvn")
    if maven is None:
        raise _missing("Maven is not on the path")
    LIBRARIES.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=LIBRARIES.parent) as folder:
        fetched = Path(folder) / "kafka"
        _copy_dependencies(maven, fetched)
        shutil.copy2(POM, fetched)  # last: it marks the folder as whole
        shutil.rmtree(LIBRARIES, ignore_errors=True)
        fetched.rename(LIBRARIES)
    return LIBRARIES


def _copy_dependencies(maven: str, folder: Path) -> None:
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
    try:
        subprocess.run(
            [maven, "--batch-mode", "--quiet", "--strict-checksums", "-f", str(POM), *goal],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_WITHIN_S,
            check=True,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise NotReady(f"Maven could not fetch Kafka: {exc}", reason="KAFKA_NOT_INSTALLED") from exc
    except subprocess.CalledProcessError as exc:
        lines = str(exc.stdout).splitlines()[-_LOG_TAIL_LINES:]
        raise NotReady(
            "\n  ".join([f"Maven could not fetch what {POM} names:", *lines]), reason="KAFKA_NOT_INSTALLED"
        ) from exc


def _missing(what: str) -> NotReady:
    return NotReady(
        f"{what}: install Java {LEAST_JAVA} and Maven (Debian: apt-get install openjdk-17-jre-headless maven), "
        "or run `docker compose up kafka`",
        reason="KAFKA_NOT_INSTALLED",
    )
