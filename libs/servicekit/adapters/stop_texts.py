"""Takes stop texts out of a token stream: TGI sends them as part of the answer, on either of its APIs.

Pure; used by the adapters of remote engines.
"""


class StopTexts:
    """Releases text as soon as it can no longer be part of a stop text."""

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._stop = stop
        self._held = ""
        self.reached = False

    def feed(self, text: str) -> str:
        """What may be released; after a stop text is reached, nothing any more."""
        if self.reached:
            return ""
        if not self._stop:
            return text
        self._held += text
        ends = [at for mark in self._stop if (at := self._held.find(mark)) >= 0]
        if ends:
            self.reached = True
            released, self._held = self._held[: min(ends)], ""
            return released
        keep = max(_overlap(self._held, mark) for mark in self._stop)
        cut = len(self._held) - keep
        released, self._held = self._held[:cut], self._held[cut:]
        return released

    def rest(self) -> str:
        """What was held back, once the stream has ended."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, mark: str) -> int:
    """The length of the longest end of `text` that begins `mark`."""
    longest = min(len(text), len(mark) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(mark[:size])), 0)
