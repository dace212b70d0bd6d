"""What a policy is: for each detector, what is done on each surface and what happens when it fails.

Pure; read from files by `policy_file.py`, applied by `judging.py`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from servicekit.domain.verdict import Action, Surface


class OnFailure(StrEnum):
    """What a detector's failure means: the text passes with a flag, or it is blocked."""

    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class DetectorPolicy:
    """One detector's part of a policy; a surface without an action is not judged by it.

    Findings below `min_score` are not told. With `shadow` they are told and not acted upon.
    """

    actions: Mapping[Surface, Action]
    min_score: float
    on_failure: OnFailure
    shadow: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """What one tenant wants, in full; `version` changes with the content and with nothing else."""

    name: str
    detectors: Mapping[str, DetectorPolicy]

    @property
    def version(self) -> str:
        """`name@` and twelve hexadecimal digits of the content's SHA-256."""
        content = {
            detector: {
                "actions": {surface.value: action.value for surface, action in policy.actions.items()},
                "min_score": policy.min_score,
                "on_failure": policy.on_failure.value,
                "shadow": policy.shadow,
            }
            for detector, policy in self.detectors.items()
        }
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return f"{self.name}@{digest[:12]}"
