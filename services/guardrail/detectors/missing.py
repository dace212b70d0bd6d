"""Stands in for a detector that could not be built: whoever asks it hears so, and the policy decides.

Used by `catalogue.py`. A model's file that is absent or corrupt takes one detector away, not the service.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import structlog
from pydantic import BaseModel

from servicekit.domain.verdict import Finding, Surface
from servicekit.errors import NotReady
from services.guardrail.detectors.detector import Detector, Subject

log = structlog.get_logger()


class DetectorClass(Protocol):
    """A class of detectors: what is known of it before one is built."""

    @property
    def id(self) -> str:
        """As of `Detector`; so are the others."""
        ...

    @property
    def surfaces(self) -> frozenset[Surface]:
        """Where it makes sense."""
        ...

    @property
    def redacts(self) -> bool:
        """Whether it could redact."""
        ...

    @property
    def options_model(self) -> type[BaseModel] | None:
        """What a policy may state."""
        ...

    def __call__(self) -> Detector:
        """Build one; may raise anything."""
        ...


@dataclass(frozen=True, slots=True)
class MissingDetector:
    """Known to policies under its id, and never an answer."""

    id: str
    surfaces: frozenset[Surface]
    redacts: bool
    options_model: type[BaseModel] | None
    cause: str
    version: str = "missing"

    def find(self, subject: Subject) -> Iterable[Finding]:  # noqa: ARG002  # no text gets an answer
        """Raises NotReady."""
        raise NotReady(f"the detector {self.id} could not be built ({self.cause})", reason="DETECTOR_MISSING")


def built_or_missing(kind: DetectorClass) -> Detector:
    """The detector, or its stand-in; the cause is logged once, here."""
    try:
        return kind()
    except Exception as exc:  # noqa: BLE001  # whatever is wrong with one detector, the others judge
        log.error("detector.missing", detector=kind.id, error=type(exc).__name__, cause=str(exc))  # noqa: TRY400  # these say it
        return MissingDetector(kind.id, kind.surfaces, kind.redacts, kind.options_model, type(exc).__name__)
