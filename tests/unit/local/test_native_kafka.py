"""The native broker's configuration, and what is said where it cannot be run."""

from pathlib import Path

import pytest

from servicekit.errors import NotReady
from services.local import native_install
from services.local.__main__ import choose_native
from services.local.layout import Layout, choose_ports
from services.local.native_kafka import Listener, NativeKafka


def _fake_java(folder: Path, told: str) -> Path:
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho '{told}' >&2\n", encoding="ascii")
    java.chmod(0o755)
    return java


def test_one_more_listener_sends_its_clients_elsewhere(tmp_path: Path) -> None:
    """Who comes to the extra listener is told the advertised port; the others are told the broker's own."""
    native = NativeKafka(tmp_path, 9001, 9002, (Listener("WATCHED", 9003, 9004),))
    settings = dict(line.split("=", 1) for line in native._properties().splitlines() if line and line[0] != "#")
    assert settings["listeners"] == ("PLAINTEXT://127.0.0.1:9001,WATCHED://127.0.0.1:9003,CONTROLLER://127.0.0.1:9002")
    assert settings["advertised.listeners"] == "PLAINTEXT://127.0.0.1:9001,WATCHED://127.0.0.1:9004"
    assert settings["listener.security.protocol.map"] == "PLAINTEXT:PLAINTEXT,WATCHED:PLAINTEXT,CONTROLLER:PLAINTEXT"


def test_java_that_is_too_old_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which Java was found and what to install."""
    _fake_java(tmp_path, 'openjdk version "11.0.2" 2019-01-15')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(NotReady, match=r"(?s)Java 17 or newer is needed.*11\.0\.2.*apt-get install.*maven"):
        native_install.find_java()


def test_java_of_this_century_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer major version than the least is fine; vendors differ in all but the version's form."""
    java = _fake_java(tmp_path, 'java version "21.0.1" 2023-10-17 LTS')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert native_install.find_java() == str(java)


def test_missing_maven_stands_in_the_way_only_of_installing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept runs without Maven; what is to be fetched names it."""
    _fake_java(tmp_path, 'openjdk version "17.0.15" 2025-04-15')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setattr(native_install.shutil, "which", lambda _command: None)
    monkeypatch.setattr(native_install, "LIBRARIES", tmp_path / "kept")
    assert "Maven is not on the path" in native_install.obstacle()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "pom.xml").write_bytes(native_install.POM.read_bytes())
    assert not native_install.obstacle()


def test_other_versions_than_kept_are_installed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder made from another project file is not what the project file names now."""
    monkeypatch.setattr(native_install, "LIBRARIES", tmp_path)
    (tmp_path / "pom.xml").write_text("<project/>", encoding="ascii")
    assert not native_install.is_installed()


def test_auto_takes_the_embedded_broker_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without Java the stack still starts; who asked for the native broker gets it, and its error."""
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "none"))
    layout = Layout(tmp_path, choose_ports({}, free=True), overrides={})
    assert choose_native(layout, servers="auto") is None
    assert "embedded broker takes its place" in capsys.readouterr().err
    native = choose_native(layout, servers="native")
    assert native is not None
    with pytest.raises(NotReady, match="install Java 17 and Maven"):
        native.prepare()
