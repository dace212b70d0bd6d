"""Remembers what a stream's caller was told, so that what is judged twice is told once.

Pure; used by `stream.py`.
"""

from collections.abc import Iterable
from dataclasses import replace

from servicekit.domain.verdict import Action, Span, Verdict, combined_action, strongest
from services.guardrail.verdicts import MAX_VERDICTS

MAX_KEPT = 2_000
_Key = tuple[str, str, int, str, bool]


class Told:
    """The verdicts of one stream; `kept` of them are there for its decision, the action counts all."""

    def __init__(self) -> None:
        self._keys: set[_Key] = set()
        self._count = 0
        self.kept: list[Verdict] = []
        self.action = Action.ALLOW

    def new(self, verdicts: Iterable[Verdict], *, offset: int, after: int, before: int) -> tuple[Verdict, ...]:
        """Those not told yet that begin in front of `before` and end behind `after`, moved to their places in all text.

        A block counts wherever it is. At most 200 are told in a stream, the last place kept for a block.
        """
        new = [verdict for verdict in (_moved(one, offset) for one in verdicts) if self._is_new(verdict, after, before)]
        self._keys.update(map(_key, new))
        self.action = strongest((self.action, combined_action(new)))
        self.kept += new[: max(0, MAX_KEPT - len(self.kept))]
        return tuple(verdict for verdict in new if self._may_tell(verdict))

    def _is_new(self, verdict: Verdict, after: int, before: int) -> bool:
        if _key(verdict) in self._keys:
            return False
        if verdict.span is None or (verdict.action is Action.BLOCK and not verdict.shadow):
            return True
        return verdict.span.start < before and verdict.span.end > after

    def _may_tell(self, verdict: Verdict) -> bool:
        blocks = verdict.action is Action.BLOCK and not verdict.shadow
        if self._count >= MAX_VERDICTS - (not blocks):
            return False
        self._count += 1
        return True


def _moved(verdict: Verdict, offset: int) -> Verdict:
    if verdict.span is None or offset == 0:
        return verdict
    return replace(verdict, span=Span(verdict.span.start + offset, verdict.span.end + offset))


def _key(verdict: Verdict) -> _Key:
    start = -1 if verdict.span is None else verdict.span.start
    return verdict.detector, verdict.rule, start, verdict.policy_version, verdict.shadow
