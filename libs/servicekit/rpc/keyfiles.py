"""Writes and reads key files: an Ed25519 pair for the gateway's tokens, random keys for signed request ids.

Used by the supervisor at first start and by `rpc.auth`; files are written whole, mode 0600, never overwritten.
"""

import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from servicekit.errors import InvalidRequest

HMAC_KEY_BYTES = 32


def ensure_token_keys(private_key_file: Path, public_key_file: Path) -> None:
    """Make the Ed25519 pair if the private key is not there; write the public key that belongs to it."""
    if not private_key_file.exists():
        made = Ed25519PrivateKey.generate()
        write_private(private_key_file, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = load_private_key(private_key_file).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if not public_key_file.exists() or public_key_file.read_bytes() != pem:
        write_private(public_key_file, pem)


def ensure_hmac_key(key_file: Path) -> None:
    """Make a random key of 256 bits, in hexadecimal on one line, if the file is not there."""
    if not key_file.exists():
        write_private(key_file, f"{secrets.token_hex(HMAC_KEY_BYTES)}\n".encode())


def read_hmac_keys(key_file: Path) -> tuple[bytes, ...]:
    """The keys of the file, one hexadecimal line each, the newest first; blank lines and `#` lines are skipped.

    Raises:
        InvalidRequest: the file is missing, empty, or holds a line that is not hexadecimal.
    """
    try:
        lines = key_file.read_text(encoding="ascii").splitlines()
        keys = tuple(bytes.fromhex(line) for line in lines if line.strip() and not line.startswith("#"))
    except (OSError, ValueError) as exc:
        raise InvalidRequest(
            f"{key_file} must hold hexadecimal keys, one a line; {_reason(exc)}", field=str(key_file)
        ) from exc
    if not keys:
        raise InvalidRequest(f"{key_file} holds no key; write 64 hexadecimal digits", field=str(key_file))
    return keys


def load_private_key(key_file: Path) -> Ed25519PrivateKey:
    """The Ed25519 private key of a PEM file.

    Raises:
        InvalidRequest: the file is missing or holds something else.
    """
    key = _load(key_file, private=True)
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidRequest(f"{key_file} must hold an Ed25519 private key in PEM", field=str(key_file))
    return key


def load_public_key(key_file: Path) -> Ed25519PublicKey:
    """The Ed25519 public key of a PEM file.

    Raises:
        InvalidRequest: the file is missing or holds something else.
    """
    key = _load(key_file, private=False)
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidRequest(f"{key_file} must hold an Ed25519 public key in PEM", field=str(key_file))
    return key


def write_private(path: Path, content: bytes) -> None:
    """Replace the file as one step: written aside with mode 0600, synced, renamed, the folder synced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _load(key_file: Path, *, private: bool) -> object:
    try:
        content = key_file.read_bytes()
        return load_pem_private_key(content, password=None) if private else load_pem_public_key(content)
    except (OSError, ValueError) as exc:
        kind = "private" if private else "public"
        raise InvalidRequest(
            f"{key_file} must hold an Ed25519 {kind} key in PEM; {_reason(exc)}", field=str(key_file)
        ) from exc


def _reason(exc: Exception) -> str:
    return exc.strerror or "it cannot be read" if isinstance(exc, OSError) else "its content does not parse"
