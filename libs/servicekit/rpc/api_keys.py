"""API keys: 256 random bits each, known to the server only by their SHA-256, in one JSON file with tenant and scopes.

Read by `rpc.auth` (again whenever the file changes); written by the `binnacle keys` command and the supervisor.
"""

import fcntl
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from servicekit.errors import InvalidRequest, NotFound, Unauthenticated
from servicekit.ports.clock import Clock, SystemClock
from servicekit.rpc.caller import ALL_SCOPES, SCOPES, TENANT_RULE, Caller, is_tenant
from servicekit.rpc.keyfiles import write_private

PREFIX = "bk_"
_KEY_BYTES = 32
_RECHECK_S = 0.5

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key as the file keeps it; the key itself is shown once, when it is made, and stored nowhere."""

    id: str
    sha256: str
    tenant: str
    scopes: tuple[str, ...]
    created_time: str
    revoked_time: str | None = None


def create_key(file: Path, *, tenant: str, scopes: Iterable[str], clock: Clock | None = None) -> tuple[ApiKey, str]:
    """Add a key; returns its record and the key itself, which cannot be read again.

    Raises:
        InvalidRequest: a malformed tenant (`[a-z0-9_-]`, 1 to 63), no scope, or an unknown one.
    """
    granted = _checked(tenant, scopes)
    secret = PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    created = (clock or SystemClock()).now().isoformat(timespec="seconds")
    record = ApiKey(f"key_{secrets.token_hex(8)}", digest(secret), tenant, granted, created)
    with _locked(file):
        _write(file, [*read_keys(file), record])
    return record, secret


def revoke_key(file: Path, key_id: str, *, clock: Clock | None = None) -> ApiKey:
    """Refuse the key from now on; revoking twice keeps the first time.

    Raises:
        NotFound: no key has this id.
    """
    revoked = (clock or SystemClock()).now().isoformat(timespec="seconds")
    with _locked(file):
        keys = read_keys(file)
        for index, key in enumerate(keys):
            if key.id == key_id:
                keys[index] = key if key.revoked_time else replace(key, revoked_time=revoked)
                _write(file, keys)
                return keys[index]
    raise NotFound(f"no API key has the id {key_id!r}; list them to see which there are", reason="KEY_NOT_FOUND")


def read_keys(file: Path) -> list[ApiKey]:
    """All keys of the file, revoked ones too; none if there is no file.

    Raises:
        InvalidRequest: the file is no document of keys.
    """
    try:
        document = json.loads(file.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as exc:
        raise InvalidRequest(f"{file} cannot be read as a document of API keys", field=str(file)) from exc
    try:
        return [_parse(entry) for entry in document["keys"]]
    except (KeyError, TypeError, ValueError) as exc:
        raise InvalidRequest(f"{file} does not hold API keys: {exc}", field=str(file)) from exc


def digest(secret: str) -> str:
    """What the file keeps of a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


class ApiKeyStore:
    """The file's keys in memory, looked at again when its change time moves (at most twice a second)."""

    def __init__(self, file: Path, *, clock: Clock | None = None) -> None:
        self._file = file
        self._clock = clock or SystemClock()
        self._by_digest: dict[str, ApiKey] = {}
        self._seen: tuple[int, int, int] | None = None
        self._checked_s = float("-inf")

    def authenticate(self, secret: str) -> Caller:
        """The owner of a key.

        Raises:
            Unauthenticated: an unknown or revoked key.
        """
        self._refresh()
        presented = digest(secret)
        key = self._by_digest.get(presented)
        if key is None or not hmac.compare_digest(key.sha256, presented):
            raise Unauthenticated("this API key is not known here", reason="API_KEY_UNKNOWN")
        if key.revoked_time is not None:
            raise Unauthenticated(f"this API key was revoked at {key.revoked_time}", reason="API_KEY_REVOKED")
        return Caller(tenant=key.tenant, subject=key.id, scopes=frozenset(key.scopes))

    def _refresh(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._checked_s < _RECHECK_S:
            return
        self._checked_s = now_s
        try:
            status = self._file.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            stamp = (0, 0, 0)
        if stamp == self._seen:
            return
        try:
            keys = read_keys(self._file)
        except InvalidRequest as exc:
            # The keys known so far stay valid: a broken edit must not lock everyone out.
            log.error("api_keys.unreadable", file=str(self._file), error=exc.message)  # noqa: TRY400  # message says it
        else:
            self._by_digest = {key.sha256: key for key in keys}
            log.info("api_keys.loaded", file=str(self._file), keys=len(keys))
        self._seen = stamp


def _checked(tenant: str, scopes: Iterable[str]) -> tuple[str, ...]:
    if not is_tenant(tenant):
        raise InvalidRequest(f"tenant must be {TENANT_RULE}; got {tenant!r}", field="tenant")
    granted = tuple(sorted(set(scopes)))
    unknown = [scope for scope in granted if scope not in SCOPES and scope != ALL_SCOPES]
    if unknown or not granted:
        valid = ", ".join(sorted(SCOPES))
        raise InvalidRequest(
            f"scopes must be some of {valid}, or *; got {', '.join(granted) or 'none'}", field="scopes"
        )
    return granted


def _parse(entry: dict[str, Any]) -> ApiKey:
    revoked = entry.get("revoked_time")
    datetime.fromisoformat(entry["created_time"])
    if not is_tenant(str(entry["tenant"])):
        raise ValueError(f"tenant must be {TENANT_RULE}; got {entry['tenant']!r}")
    return ApiKey(
        id=str(entry["id"]),
        sha256=str(entry["sha256"]).lower(),
        tenant=str(entry["tenant"]),
        scopes=tuple(str(scope) for scope in entry["scopes"]),
        created_time=str(entry["created_time"]),
        revoked_time=None if revoked is None else str(revoked),
    )


def _write(file: Path, keys: Iterable[ApiKey]) -> None:
    document = {"keys": [asdict(key) for key in keys]}
    write_private(file, json.dumps(document, indent=2).encode() + b"\n")


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One writer at a time, across processes; the lock is a file beside, for the file itself is replaced."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file.with_name(f".{file.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
