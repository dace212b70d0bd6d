"""Estimates token counts where no tokenizer can be asked; every result is marked as an estimate by its user.

Pure; used by engine adapters without a tokenizer route.
"""

import math

_BYTES_PER_TOKEN = 4.0
_TOKENS_PER_WORD = 4 / 3


def estimate_tokens(text: str) -> int:
    """About how many tokens a byte-pair tokenizer makes of `text`; 0 only for an empty text.

    The larger of a token per four UTF-8 bytes and four tokens per three blank-separated words, rounded up:
    rather too high than too low for prose, so that a prompt packed by it fits.
    """
    by_bytes = len(text.encode()) / _BYTES_PER_TOKEN
    return math.ceil(max(by_bytes, len(text.split()) * _TOKENS_PER_WORD))
