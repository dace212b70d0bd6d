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


def roles_of(detector: Detector) -> frozenset[Role]:
    """What can be replaced, and what is not to be seen at all, is looked for before anybody sees it.

    A quotation may be spread over more than any window holds: leaks are looked for at the end once more.
    """
    if detector.id in _EARLY:
        return frozenset({Role.EARLY, Role.WHOLE})
    if detector.redacts:
        return frozenset({Role.EARLY})
    return frozenset({Role.WHOLE if detector.id in _WHOLE else Role.BEHIND})
