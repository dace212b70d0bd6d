"""What a policy is: for each detector, what is done on each surface and what happens when it fails.

Pure; read from files by `policy_file.py`, applied by `judging.py`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from pydantic import BaseModel

from servicekit.domain.verdict import Action, Surface

DEFAULT_TIMEOUT_MS = 1_000


class OnFailure(StrEnum):
    """What a detector's failure means: the text passes with a flag, or it is blocked."""

    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class DetectorPolicy:
    """One detector's part of a policy; a surface without an action is not judged by it.

    Findings below `min_score` are not told. With `shadow` they are told and not acted upon. A detector that takes
    longer than `timeout_ms` for one text has failed. `options` are the detector's own; None: its defaults.
    """

    actions: Mapping[Surface, Action]
    min_score: float
    on_failure: OnFailure
    shadow: bool
    timeout_ms: int = DEFAULT_TIMEOUT_MS
    options: BaseModel | None = None

    def described(self) -> dict[str, Any]:
        """As a policy file would state it, every setting told."""
        stated: dict[str, Any] = {
            surface.value: self.actions[surface].value if surface in self.actions else "off" for surface in Surface
        }
        stated |= {
            "min_score": self.min_score,
            "on_failure": self.on_failure.value,
            "timeout_ms": self.timeout_ms,
            "shadow": self.shadow,
        }
        if self.options is not None:
            stated["options"] = self.options.model_dump(mode="json")
        return stated


@dataclass(frozen=True)
class Policy:
    """What one tenant wants on one route, in full; `version` changes with the content and with nothing else.

    With `shadow` everything is decided and told, and nothing is acted upon.
    """

    name: str
    detectors: Mapping[str, DetectorPolicy]
    shadow: bool = False

    @cached_property
    def version(self) -> str:
        """`name@` and twelve hexadecimal digits of the content's SHA-256."""
        content = json.dumps(self.described(), sort_keys=True)
        return f"{self.name}@{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def described(self) -> dict[str, Any]:
        """As a policy file would state it, every setting told."""
        return {
            "shadow": self.shadow,
            "detectors": {detector: policy.described() for detector, policy in self.detectors.items()},
        }


@dataclass(frozen=True, slots=True)
class PoliciesInForce:
    """What one check goes by to its end: the policy, and a candidate whose verdicts are told and not acted upon."""

    policy: Policy
    candidate: Policy | None = None
