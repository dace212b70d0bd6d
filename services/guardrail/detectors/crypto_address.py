"""Finds addresses of Bitcoin, Litecoin and Ethereum wallets. Pure; one of `catalogue.py`'s detectors.

Base58 and Bech32 prove themselves by their checksums; Ethereum's mixed-case checksum (EIP-55) is not asked, since
most write addresses in lower case.
"""

import hashlib
from collections.abc import Iterator

from servicekit.domain.verdict import Finding, Span
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.linear import LinearPattern

_BASE58 = LinearPattern(r"\b[13LMm][1-9A-HJ-NP-Za-km-z]{25,34}\b")
_BECH32 = LinearPattern(r"\b(?:bc|ltc|tb)1[02-9ac-hj-np-z]{11,87}\b", ignore_case=True)
_ETHEREUM = LinearPattern(r"\b0x[0-9a-fA-F]{40}\b")
_BASE58_DIGITS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32_DIGITS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32_CONSTANTS = (1, 0x2BC830A3)  # BIP 173, BIP 350
_PAYLOAD_BYTES, _CHECK_BYTES = 21, 4
_FEWEST_DISTINCT = 6


class CryptoAddressDetector:
    """Wallets' addresses: Base58Check (from 1, 3, L, M), Bech32 (bc1, ltc1) and `0x` with forty digits."""

    id = "pii.crypto_address"
    version = "1"
    surfaces = EVERY_SURFACE
    redacts = True
    options_model = None

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Score 0.97 where the checksum is right, 0.85 for an Ethereum address, which has none here."""
        text = subject.text
        for span in _BASE58.spans(text):
            if _is_base58check(text[span.start : span.end]):
                yield _finding("bitcoin", 0.97, span)
        for span in _BECH32.spans(text):
            if _is_bech32(text[span.start : span.end]):
                yield _finding("bitcoin", 0.97, span)
        if "0x" not in text:
            return
        for span in _ETHEREUM.spans(text):
            if len(set(text[span.start + 2 : span.end].lower())) >= _FEWEST_DISTINCT:
                yield _finding("ethereum", 0.85, span)


def _finding(currency: str, score: float, span: Span) -> Finding:
    return Finding(f"pii.crypto_address.{currency}", score, span, "WALLET", "A cryptocurrency address.")


def _is_base58check(written: str) -> bool:
    """The last four bytes are the first of the double SHA-256 of the rest."""
    number = 0
    for char in written:
        number = number * 58 + _BASE58_DIGITS.index(char)
    if number.bit_length() > 8 * (_PAYLOAD_BYTES + _CHECK_BYTES):
        return False
    data = number.to_bytes(_PAYLOAD_BYTES + _CHECK_BYTES, "big")
    digest = hashlib.sha256(hashlib.sha256(data[:_PAYLOAD_BYTES]).digest()).digest()
    return digest[:_CHECK_BYTES] == data[_PAYLOAD_BYTES:]


def _is_bech32(written: str) -> bool:
    """BIP 173's checksum over the human readable part and the data; all of it in one case."""
    if written not in {written.lower(), written.upper()}:
        return False
    part, _, data = written.lower().rpartition("1")
    values = [ord(char) >> 5 for char in part] + [0] + [ord(char) & 31 for char in part]
    values += [_BECH32_DIGITS.find(char) for char in data]
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for position, generator in enumerate(_BECH32_GENERATORS):
            check ^= generator if top >> position & 1 else 0
    return check in _BECH32_CONSTANTS
