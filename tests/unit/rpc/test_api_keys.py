"""API keys in their file: made, listed, revoked, read again when the file changes."""

import json
import os
import stat
from pathlib import Path

import pytest

from servicekit.errors import InvalidRequest, NotFound, Unauthenticated
from servicekit.rpc.api_keys import PREFIX, ApiKeyStore, create_key, digest, read_keys, revoke_key
from servicekit.rpc.caller import Caller
from servicekit.testing.clocks import FakeClock


def test_key_is_shown_once_and_stored_as_its_digest(tmp_path: Path) -> None:
    """The file never holds the key, is private, and names who it belongs to."""
    file = tmp_path / "state" / "keys.json"
    record, secret = create_key(file, tenant="acme", scopes=["answer", "feedback", "answer"], clock=FakeClock())
    assert secret.startswith(PREFIX)
    assert len(secret) == len(PREFIX) + 43  # 256 bits in URL-safe base64
    assert secret not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_keys(file) == [record]
    assert (record.sha256, record.tenant, record.scopes) == (digest(secret), "acme", ("answer", "feedback"))
    assert record.created_time == "2030-01-01T00:00:00+00:00"


@pytest.mark.parametrize("tenant", ["", "Acme", "a/b", "-a", "a" * 64, "ключ"])
def test_malformed_tenant_is_refused(tmp_path: Path, tenant: str) -> None:
    """A tenant ends up in folders and headers, so only a safe name passes."""
    with pytest.raises(InvalidRequest, match="tenant must be"):
        create_key(tmp_path / "keys.json", tenant=tenant, scopes=["answer"])


@pytest.mark.parametrize("scopes", [[], ["everything"], ["answer", "Answer"]])
def test_unknown_scope_is_refused(tmp_path: Path, scopes: list[str]) -> None:
    """A key carries known scopes, at least one; the message lists them."""
    with pytest.raises(InvalidRequest, match="scopes must be some of admin"):
        create_key(tmp_path / "keys.json", tenant="acme", scopes=scopes)


def test_revoked_key_keeps_its_first_time(tmp_path: Path) -> None:
    """Revoking twice is revoking once."""
    file, clock = tmp_path / "keys.json", FakeClock()
    record, _ = create_key(file, tenant="acme", scopes=["*"], clock=clock)
    first = revoke_key(file, record.id, clock=clock)
    clock.advance(60)
    assert revoke_key(file, record.id, clock=clock) == first == read_keys(file)[0]
    assert first.revoked_time is not None


def test_revoking_nothing_is_not_found(tmp_path: Path) -> None:
    """An id that no key has is NotFound, and no file appears."""
    with pytest.raises(NotFound, match="key_nope"):
        revoke_key(tmp_path / "keys.json", "key_nope")
    assert not (tmp_path / "keys.json").exists()


def test_store_follows_the_file(tmp_path: Path) -> None:
    """A key made after the start is accepted, a revoked one refused, once the recheck interval has passed."""
    file, clock = tmp_path / "keys.json", FakeClock()
    store = ApiKeyStore(file, clock=clock)
    with pytest.raises(Unauthenticated):
        store.authenticate("bk_whatever")
    record, secret = create_key(file, tenant="acme", scopes=["answer"])
    clock.advance(1)
    assert store.authenticate(secret) == Caller("acme", record.id, frozenset({"answer"}))
    revoke_key(file, record.id)
    clock.advance(1)
    with pytest.raises(Unauthenticated, match="revoked"):
        store.authenticate(secret)


def test_broken_edit_keeps_the_known_keys(tmp_path: Path) -> None:
    """A file that no longer parses locks nobody out."""
    file, clock = tmp_path / "keys.json", FakeClock()
    _, secret = create_key(file, tenant="acme", scopes=["answer"])
    store = ApiKeyStore(file, clock=clock)
    store.authenticate(secret)
    file.write_text("{")
    os.utime(file, ns=(1, 1))
    clock.advance(1)
    assert store.authenticate(secret).tenant == "acme"


CLIMBING = {"id": "a", "sha256": "b", "tenant": "../x", "scopes": [], "created_time": "2030-01-01T00:00:00+00:00"}


@pytest.mark.parametrize("document", ["[]", '{"keys": [{}]}', '{"keys": 3}', json.dumps({"keys": [CLIMBING]})])
def test_foreign_document_is_refused(tmp_path: Path, document: str) -> None:
    """What is no document of keys is named as such, never half read."""
    file = tmp_path / "keys.json"
    file.write_text(document)
    with pytest.raises(InvalidRequest, match=r"keys\.json"):
        read_keys(file)


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    """Writing leaves the file, its lock and nothing half done."""
    file = tmp_path / "keys.json"
    for tenant in ("a", "b", "c"):
        create_key(file, tenant=tenant, scopes=["answer"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".keys.json.lock", "keys.json"]
    assert [key["tenant"] for key in json.loads(file.read_text())["keys"]] == ["a", "b", "c"]
