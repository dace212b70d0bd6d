"""Cuts a text into overlapping windows, so that a short attack in a long text is judged by itself.

Pure; used by the detectors that read for meaning and by their training.
"""

from servicekit.domain.verdict import Span

WINDOW_CHARS, STRIDE_CHARS = 400, 200
MAX_WINDOWS = 330
"""Enough for the longest text that a check takes, 65,536 characters; of a longer one, windows evenly spread."""


def windows(text: str, *, at_most: int = MAX_WINDOWS) -> tuple[Span, ...]:
    """Windows of 400 characters that begin every 200; the last one ends with the text. At least one, perhaps empty."""
    last = max(0, len(text) - WINDOW_CHARS)
    count = -(-last // STRIDE_CHARS) + 1
    if count <= at_most:
        starts = [min(place * STRIDE_CHARS, last) for place in range(count)]
    else:
        starts = [round(place * last / (at_most - 1)) for place in range(at_most)]
    return tuple(Span(start, min(len(text), start + WINDOW_CHARS)) for start in starts)
