"""Seals what the vault keeps: names that tell nothing, and AES-256-GCM under a key of each conversation's own.

Pure; used by `vault.py`. A seal holds for one tenant and one conversation: moved to another it does not open. Keys
come newest first; the newest seals, all of them open. As a new key can only come first once every replica knows it:
add it as the second line everywhere, then move it up, then remove the old one once `vault_ttl_s` is over.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from servicekit.errors import InvalidRequest

KEY_BYTES = 32
_VERSION = b"\x01"
_KEY_ID_BYTES = 4
_NONCE_BYTES = 12


class SealBrokenError(Exception):
    """These bytes were not sealed for this conversation by a key that is known."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose pseudonyms: a conversation's, or (`of_request`) those of a request outside of any."""

    tenant: str
    conversation: str
    of_request: bool = False

    @property
    def encoded(self) -> bytes:
        """All of it, without ambiguity: no tenant's name holds a zero."""
        kind = "request" if self.of_request else "conversation"
        return f"binnacle.vault.v1\0{self.tenant}\0{kind}\0{self.conversation}".encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class _Key:
    secret: bytes = field(repr=False)

    def derived(self, purpose: str, told: bytes) -> bytes:
        """A key for one purpose and one owner (a pseudorandom function of both)."""
        return hmac.digest(hmac.digest(self.secret, purpose.encode(), hashlib.sha256), told, hashlib.sha256)

    @property
    def id(self) -> bytes:
        return self.derived("id", b"")[:_KEY_ID_BYTES]


class Sealer:
    """Names, seals and opens.

    Raises:
        InvalidRequest: no key, or one of another length than 256 bits.
    """

    def __init__(self, secrets_newest_first: Sequence[bytes]) -> None:
        if not secrets_newest_first or any(len(secret) != KEY_BYTES for secret in secrets_newest_first):
            lengths = ", ".join(str(len(secret)) for secret in secrets_newest_first) or "none"
            raise InvalidRequest(
                f"vault_key_file must hold keys of {KEY_BYTES} bytes (64 hexadecimal digits a line), got {lengths}",
                field="vault_key_file",
            )
        self._keys = tuple(_Key(secret) for secret in secrets_newest_first)

    def places(self, owner: Owner) -> tuple[str, ...]:
        """Where the owner's pseudonyms may stand in the state store: the newest key's place first."""
        return tuple(f"vault:{owner.tenant}:{key.derived('place', owner.encoded).hex()}" for key in self._keys)

    def digest_key(self, owner: Owner) -> bytes:
        """A key for digests that every replica makes alike."""
        return self._keys[0].derived("digest", owner.encoded)

    def seal(self, content: bytes, owner: Owner) -> bytes:
        """The content, for this owner alone."""
        key = self._keys[0]
        nonce = secrets.token_bytes(_NONCE_BYTES)
        head = _VERSION + key.id
        sealed = _cipher(key, owner).encrypt(nonce, content, head + owner.encoded)
        return head + nonce + sealed

    def open(self, sealed: bytes, owner: Owner) -> bytes:
        """What was sealed.

        Raises:
            SealBrokenError: another owner's, changed, or sealed by a key that is not known.
        """
        head_bytes = len(_VERSION) + _KEY_ID_BYTES
        head, nonce, rest = (
            sealed[:head_bytes],
            sealed[head_bytes : head_bytes + _NONCE_BYTES],
            sealed[head_bytes + _NONCE_BYTES :],
        )
        key = next((key for key in self._keys if head == _VERSION + key.id), None)
        if key is None or len(nonce) != _NONCE_BYTES:
            raise SealBrokenError
        try:
            return _cipher(key, owner).decrypt(nonce, rest, head + owner.encoded)
        except InvalidTag:
            raise SealBrokenError from None


def _cipher(key: _Key, owner: Owner) -> AESGCM:
    return AESGCM(key.derived("seal", owner.encoded))
