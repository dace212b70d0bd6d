"""Identifiers: signed request ids that verify without a lookup, and ids derived from what they name.

Pure; the gateway makes and verifies request ids, every publisher derives its event ids here.
"""

import base64
import hashlib
import hmac
import uuid
from collections.abc import Sequence

from uuid_utils.compat import uuid7

MIN_KEY_BYTES = 16
_TAG_BYTES = 10
_UUID_CHARS = 36
_REQUEST_ID_CHARS = _UUID_CHARS + 1 + 16


class RequestIds:
    """Makes and verifies request ids: a UUIDv7, `-`, and 80 bits of HMAC-SHA256 over tenant and UUID.

    The ids sort by time, and an id names its tenant to whoever holds the key: a forged one, or one of another
    tenant, fails `verify` without any lookup. `keys` are newest first: the first signs, all verify, so that a
    key is replaced without refusing the ids it has signed.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) < MIN_KEY_BYTES for key in keys):
            raise ValueError(f"request ids need at least one key, each of {MIN_KEY_BYTES} bytes or more")
        self._keys = tuple(keys)

    def new(self, tenant: str) -> str:
        """A fresh id of 53 characters for a request of `tenant`."""
        identity = str(uuid7())
        return f"{identity}-{_tag(self._keys[0], tenant, identity)}"

    def verify(self, request_id: str, tenant: str) -> bool:
        """Whether one of the keys made this id for this tenant; constant time in the tag."""
        if len(request_id) != _REQUEST_ID_CHARS or not request_id.isascii():
            return False
        identity, tag = request_id[:_UUID_CHARS], request_id[_UUID_CHARS + 1 :]
        if request_id[_UUID_CHARS] != "-":
            return False
        return any(hmac.compare_digest(_tag(key, tenant, identity), tag) for key in self._keys)


def _tag(key: bytes, tenant: str, identity: str) -> str:
    digest = hmac.digest(key, f"{identity}\0{tenant}".encode(), "sha256")
    return base64.b32encode(digest[:_TAG_BYTES]).decode().lower()


def derive_id(*parts: str) -> str:
    """The UUID (version 8, RFC 9562) that these parts always give; the same parts, the same id.

    Parts are length-prefixed before hashing, so that ("ab", "c") and ("a", "bc") differ. An event whose id is
    derived from the thing it tells of stays the same event however often it is published.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "big"))
        digest.update(encoded)
    raw = bytearray(digest.digest())
    raw[6] = 0x80 | (raw[6] & 0x0F)
    raw[8] = 0x80 | (raw[8] & 0x3F)
    return str(uuid.UUID(bytes=bytes(raw)))
