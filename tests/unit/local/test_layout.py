"""Ports, keys and settings of a local stack."""

import json
import socket
import stat
from pathlib import Path

import pytest

from servicekit.errors import InvalidRequest
from services.local.layout import PREFERRED_PORTS, SERVICES, Layout, choose_ports
from services.local.supervisor import run_stack


def test_free_ports_are_all_different() -> None:
    """Every listener gets a port of its own."""
    ports = choose_ports({}, free=True)
    assert set(ports.by_name) == set(PREFERRED_PORTS)
    assert len(set(ports.by_name.values())) == len(PREFERRED_PORTS)
    assert not ports.moved


def test_a_taken_given_port_is_refused_by_name() -> None:
    """A port that somebody else holds is refused with its name, number and the way out."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(InvalidRequest, match=rf"gateway={port}: taken"):
            choose_ports({"gateway": port}, free=True)


def test_an_unknown_port_name_is_refused_with_the_known_ones() -> None:
    """A misspelt name lists the right ones."""
    with pytest.raises(InvalidRequest, match="'gatway' is none of gateway"):
        choose_ports({"gatway": 0})


def test_keys_are_made_once_and_private(tmp_path: Path) -> None:
    """A second start uses the keys of the first, and nobody else can read them."""
    layout = Layout(tmp_path / "data", choose_ports({}, free=True), overrides={})
    first = layout.prepare()
    assert layout.prepare() == first
    for file in (layout.data_dir / "secrets").iterdir():
        assert not stat.S_IMODE(file.stat().st_mode) & 0o077, file.name


async def test_a_folder_holds_one_stack(tmp_path: Path) -> None:
    """A second stack in a folder is refused before it touches anything, and the first one's files stay."""
    ports = choose_ports({}, free=True)
    layout = Layout(tmp_path, ports, overrides={})
    with layout.held():
        layout.write_stack_file(api_key=layout.prepare(), kafka="127.0.0.1:9")
        with pytest.raises(InvalidRequest, match="--data"):
            async with run_stack(Layout(tmp_path, ports, overrides={}), say=print):
                pytest.fail("it started")
        assert layout.stack_file.exists()
    with layout.held():
        pass


def test_the_stack_file_names_every_service(tmp_path: Path) -> None:
    """What `binnacle env` reads holds a target for each service."""
    layout = Layout(tmp_path, choose_ports({}, free=True), overrides={})
    layout.write_stack_file(api_key=layout.prepare(), kafka="127.0.0.1:9")
    document = json.loads(layout.stack_file.read_text(encoding="utf-8"))
    assert set(document["targets"]) == set(SERVICES)
    assert document["kafka_bootstrap_servers"] == "127.0.0.1:9"


def test_overrides_reach_only_their_service(tmp_path: Path) -> None:
    """A setting given for one service is not given to another."""
    overrides = {"BINNACLE_RETRIEVER__LOG_LEVEL": "debug"}
    layout = Layout(tmp_path, choose_ports({}, free=True), overrides=overrides)
    assert layout.environment("retriever", event_bus_url="kafka://x:1")["BINNACLE_RETRIEVER__LOG_LEVEL"] == "debug"
    assert "BINNACLE_RETRIEVER__LOG_LEVEL" not in layout.environment("gateway", event_bus_url="kafka://x:1")
