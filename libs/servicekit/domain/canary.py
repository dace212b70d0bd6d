"""A canary: a word without meaning that a system prompt holds and no honest answer can.

Pure; the generator offers it to prompts as a variable, the guardrail looks for it in answers.
"""

import hashlib
import hmac

from servicekit.errors import InvalidRequest

CANARY_LETTERS = 20
FEWEST_KEY_BYTES = 16
_PURPOSE = b"binnacle prompt canary v1"


def canary_of(key: bytes) -> str:
    """A deployment's canary, the same wherever the same key is known: 20 lower-case letters, 94 bits.

    By HMAC-SHA256, so that nobody who reads a canary learns the key.

    Raises:
        InvalidRequest: the key is too short to be secret.
    """
    if len(key) < FEWEST_KEY_BYTES:
        raise InvalidRequest(
            f"a key of canary_key_file must have at least {FEWEST_KEY_BYTES} bytes, got {len(key)}; write 64 "
            "hexadecimal digits",
            field="canary_key_file",
        )
    number = int.from_bytes(hmac.digest(key, _PURPOSE, hashlib.sha256))
    letters = []
    for _ in range(CANARY_LETTERS):
        number, letter = divmod(number, 26)
        letters.append(chr(ord("a") + letter))
    return "".join(letters)
