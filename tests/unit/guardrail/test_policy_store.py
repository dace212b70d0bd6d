"""Tests of the policies in force: by tenant, reread on change, kept when a change is wrong."""

import os
from itertools import count
from pathlib import Path

import pytest

from servicekit.domain.verdict import Action, Surface
from services.guardrail.detectors.catalogue import all_detectors
from services.guardrail.policy_file import PolicyError
from services.guardrail.policy_store import PolicyStore

DETECTORS = all_detectors()
TIMES = count(1_000_000_000)


def write(path: Path, action: str) -> None:
    """A policy file that changes one thing, with a time of its own however fast the test is."""
    path.write_text(f"detectors: {{pii.email: {{input: {action}}}}}\n", "utf-8")
    stamp = next(TIMES)
    os.utime(path, (stamp, stamp))


def email_input(store: PolicyStore, tenant: str) -> Action:
    """What the tenant's policy does about addresses in questions."""
    return store.in_force(tenant).policy.detectors["pii.email"].actions[Surface.INPUT]


@pytest.fixture
def store(tmp_path: Path) -> PolicyStore:
    """A store over a folder with a default and one tenant's file."""
    write(tmp_path / "default.yaml", "flag")
    write(tmp_path / "acme.yaml", "block")
    store = PolicyStore(tmp_path, detectors=DETECTORS)
    store.load()
    return store


def test_tenants_have_their_own_policy_or_the_default(store: PolicyStore) -> None:
    """A tenant without a file follows the folder's default."""
    assert email_input(store, "acme") is Action.BLOCK
    assert email_input(store, "globex") is Action.FLAG
    assert email_input(store, "../acme") is Action.FLAG


def test_without_a_folder_the_packaged_policy_holds() -> None:
    """No setting, no files, the packaged policy for everybody."""
    store = PolicyStore(None, detectors=DETECTORS)
    store.load()
    assert email_input(store, "acme") is Action.REDACT
    assert not store.reload_if_changed()


def test_a_change_applies_from_the_next_check(store: PolicyStore, tmp_path: Path) -> None:
    """After a reload the tenant has another policy and version; who holds the old one keeps it."""
    before = store.in_force("acme").policy
    assert not store.reload_if_changed()
    write(tmp_path / "acme.yaml", "allow")
    assert store.reload_if_changed()
    assert email_input(store, "acme") is Action.ALLOW
    assert before.version != store.in_force("acme").policy.version
    (tmp_path / "acme.yaml").unlink()
    assert store.reload_if_changed()
    assert email_input(store, "acme") is Action.FLAG


def test_a_wrong_change_keeps_the_policies_in_force(store: PolicyStore, tmp_path: Path) -> None:
    """A mistake made while running is refused once, and healed by the next right version."""
    write(tmp_path / "acme.yaml", "explode")
    assert not store.reload_if_changed()
    assert not store.reload_if_changed()
    assert email_input(store, "acme") is Action.BLOCK
    write(tmp_path / "acme.yaml", "flag")
    assert store.reload_if_changed()
    assert email_input(store, "acme") is Action.FLAG


def test_a_wrong_file_at_start_is_refused_with_its_line(tmp_path: Path) -> None:
    """A service never starts with half of its policies."""
    write(tmp_path / "acme.yaml", "explode")
    with pytest.raises(PolicyError, match=r"acme\.yaml:1: unknown value of pii\.email\.input: 'explode'"):
        PolicyStore(tmp_path, detectors=DETECTORS).load()


def test_odd_folders_are_refused(tmp_path: Path) -> None:
    """A folder that is not there, a file that is no text and a name that is no tenant are told as such."""
    with pytest.raises(PolicyError, match="cannot be read"):
        PolicyStore(tmp_path / "nowhere", detectors=DETECTORS).load()
    (tmp_path / "acme.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(PolicyError, match="UTF-8"):
        PolicyStore(tmp_path, detectors=DETECTORS).load()
    (tmp_path / "acme.yaml").rename(tmp_path / "a b.yaml")
    (tmp_path / "a b.yaml").write_text("", "utf-8")
    with pytest.raises(PolicyError, match="must be a tenant's id"):
        PolicyStore(tmp_path, detectors=DETECTORS).load()
