"""The native Weaviate's settings, and what is said where it cannot be run."""

from pathlib import Path

import pytest

from services.local import native_weaviate
from services.local.layout import choose_ports


def _fake_go(folder: Path, version: str) -> Path:
    go = folder / "go"
    go.write_text(f"#!/bin/sh\necho {version}\n", encoding="ascii")
    go.chmod(0o755)
    return go


@pytest.mark.parametrize(
    ("version", "told"), [("go1.19.8", "go1.19.8, too old"), ("go1.26.0", ""), ("", "unknown version")]
)
def test_a_go_that_cannot_build_it_is_named(
    version: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says which Go was found and what to install; one that fetches newer ones is enough."""
    go = _fake_go(tmp_path, version)
    monkeypatch.setattr(native_weaviate, "FOLDER", tmp_path / "kept")
    monkeypatch.setattr("shutil.which", lambda _command: str(go))
    assert told in native_weaviate.obstacle()
    assert bool(told) == bool(native_weaviate.obstacle())


def test_what_is_kept_runs_without_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a server of this version counts as kept."""
    monkeypatch.setattr(native_weaviate, "FOLDER", tmp_path)
    monkeypatch.setattr("shutil.which", lambda _command: None)
    (tmp_path / "weaviate-server").touch()
    (tmp_path / "version").write_text("v1.38.0", encoding="ascii")
    assert "Go is not on the path" in native_weaviate.obstacle()
    (tmp_path / "version").write_text(native_weaviate.VERSION, encoding="ascii")
    assert not native_weaviate.obstacle()


def test_its_ports_are_those_of_the_stack(tmp_path: Path) -> None:
    """The URL leads to both of its ports; raft takes two that follow each other."""
    ports = choose_ports({}, free=True)
    native = native_weaviate.on_ports(tmp_path, ports.by_name)
    assert native.url == f"weaviate://127.0.0.1:{ports['weaviate']}?grpc_port={ports['weaviate.grpc']}"
    settings = native.environment()
    assert int(settings["RAFT_INTERNAL_RPC_PORT"]) == int(settings["RAFT_PORT"]) + 1
    assert not native.answers()
