"""Says when in a stream a detector is asked. Pure; used by `stream.py` and `checks.py`."""

from enum import StrEnum

from services.guardrail.detectors.detector import Detector

_EARLY = frozenset({"leak"})
_WHOLE = frozenset({"groundedness", "language", "output_schema"})


class Role(StrEnum):
    """EARLY: about text before its release. BEHIND: about sentences after it. WHOLE: about all of it, at the end."""

    EARLY = "early"
    BEHIND = "behind"
    WHOLE = "whole"


def role_of(detector: Detector) -> Role:
    """What can be replaced, and what is not to be seen at all, is looked for before anybody sees it."""
    if detector.redacts or detector.id in _EARLY:
        return Role.EARLY
    return Role.WHOLE if detector.id in _WHOLE else Role.BEHIND
