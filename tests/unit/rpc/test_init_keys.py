"""The key files of a deployment."""

import stat
from pathlib import Path

import pytest

from servicekit.rpc.api_keys import read_keys
from servicekit.rpc.init_keys import API_KEYS, main


def test_keys_are_made_once_and_the_api_key_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second run changes no file and prints no key."""
    folder = tmp_path / "keys"
    assert main(["--directory", str(folder), "--tenant", "acme"]) == 0
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "bk_" in capsys.readouterr().out
    assert main(["--directory", str(folder)]) == 0
    assert capsys.readouterr().out == ""
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert [key.tenant for key in read_keys(folder / API_KEYS)] == ["acme"]


def test_key_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """No other user of the machine may read one."""
    main(["--directory", str(tmp_path)])
    assert not any(stat.S_IMODE(path.stat().st_mode) & 0o077 for path in tmp_path.iterdir() if path.suffix != ".lock")
