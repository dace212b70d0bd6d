"""Keeps the finished graph in a cache folder: built once, by one process, and moved into place whole.

Called by `embedder.py` at start and by `build.py` at installation.
"""

import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from servicekit.adapters.onnx.model_files import ModelFiles, hash_file
from servicekit.adapters.onnx.session import Encoder, EncoderSession
from servicekit.errors import NotReady

# Raise it whenever the exporter or the quantiser changes a vector: old files are then left alone.
GRAPH_FORMAT = 1
_HASH_CHARS = 12

Report = Callable[[str], None]
MakeEncoder = Callable[[Path], Encoder]


class Precision(StrEnum):
    """The number format of the weights."""

    INT8 = "int8"
    FP32 = "fp32"


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/binnacle`, by default `~/.cache/binnacle`."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "binnacle"


def report_on_stderr(message: str) -> None:
    """Tell a person at the terminal what takes its time."""
    sys.stderr.write(f"embedding model: {message}\n")
    sys.stderr.flush()


def graph_revision(files: ModelFiles, precision: Precision) -> str:
    """Names everything that decides a vector: weights, precision, format of the graph."""
    kind = "" if files.pooled else "-states"
    return f"{hash_file(files.weights)[:_HASH_CHARS]}-{precision}-v{GRAPH_FORMAT}{kind}"


def graph_path(files: ModelFiles, precision: Precision, cache_dir: Path) -> Path:
    """Where the graph lies once it is built."""
    return cache_dir / f"{files.name}-{graph_revision(files, precision)}.onnx"


def ensure_graph(
    files: ModelFiles,
    precision: Precision,
    cache_dir: Path,
    *,
    make_encoder: MakeEncoder | None = None,
    report: Report = report_on_stderr,
) -> Path:
    """The graph's path; builds it (4 s) if it is not there. A second process waits for the first one's file.

    `make_encoder` runs a graph for the comparison of a quantised one; without it, the graph's own pooling is run.

    Raises:
        NotReady: the cache folder cannot be written, or the finished graph does not do what it must.
    """
    path = graph_path(files, precision, cache_dir)
    if path.exists():
        return path
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _build_lock(path.with_suffix(".lock"), report):
            if not path.exists():
                _build(files, precision, path, make_encoder or (lambda graph: EncoderSession(graph, files)), report)
    except OSError as exc:
        raise NotReady(
            f"the embedding model's cache folder {str(cache_dir)!r} cannot be written ({exc.strerror}): "
            "name another one with cache_dir=… in the embedder's URL",
            reason="CACHE_NOT_WRITABLE",
        ) from exc
    return path


@contextmanager
def _build_lock(path: Path, report: Report) -> Iterator[None]:
    # The lock ends with the process that holds it, however that ends; the empty file stays.
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("another process is building the graph, waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(files: ModelFiles, precision: Precision, path: Path, make_encoder: MakeEncoder, report: Report) -> None:
    # Imported here: a start that finds the graph needs none of this.
    from servicekit.adapters.onnx.export import export_graph  # noqa: PLC0415  # see above
    from servicekit.adapters.onnx.graph_check import check_graph  # noqa: PLC0415  # see above
    from servicekit.adapters.onnx.quantize import quantize_graph  # noqa: PLC0415  # see above

    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".building-") as folder:
        exported, finished = Path(folder) / "fp32.onnx", Path(folder) / path.name
        report(f"writing {files.name} as an ONNX graph (once)")
        export_graph(files, exported)
        if precision is Precision.INT8:
            report("quantising it to int8")
            quantize_graph(exported, finished)
            report("checking it against fp32")
            check_graph(make_encoder(finished), make_encoder(exported), name=files.name)
        else:
            exported.rename(finished)
        with finished.open("rb") as file:
            os.fsync(file.fileno())
        size_mb = finished.stat().st_size / 1e6
        finished.rename(path)
    report(f"ready in {time.monotonic() - started_s:.1f} s: {path} ({size_mb:.0f} MB)")
