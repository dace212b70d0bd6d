"""Holds the policies in force: the packaged default, and the files of `policy_dir`, reread when they change.

Used by `checking.py`; `bootstrap.py` loads it at start and runs `watch` as a background task.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.guardrail.detectors.detector import Detector
from services.guardrail.policy import PoliciesInForce
from services.guardrail.policy_file import PolicyError, default_policy
from services.guardrail.policy_folder import DEFAULT, Resolved, policy_paths, read_folder

log = structlog.get_logger()

Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class _Loaded:
    resolved: Resolved
    fingerprint: Fingerprint


class PolicyStore:
    """The policy of each tenant and route. A change applies from the next check; a check keeps what it began with.

    Files that are wrong at start refuse the start. Files that become wrong later change nothing: the policies in
    force stay, and the error is logged, until the files are right again.
    """

    def __init__(self, directory: Path | None, *, detectors: Sequence[Detector]) -> None:
        self._directory = directory
        self._detectors = detectors
        self._packaged = default_policy(detectors)
        self._loaded = _Loaded({DEFAULT: {"": PoliciesInForce(self._packaged)}}, ())
        self._refused: Fingerprint | None = None

    @property
    def resolved(self) -> Resolved:
        """All that is in force now, by tenant and route."""
        return self._loaded.resolved

    def in_force(self, tenant: str, route: str = "") -> PoliciesInForce:
        """What a check goes by: the tenant's own policy or the default, for this route or for every other."""
        resolved = self._loaded.resolved
        routes = resolved.get(tenant) or resolved[DEFAULT]
        return routes.get(route) or routes[""]

    def load(self) -> None:
        """Read all files.

        Raises:
            PolicyError: a file cannot be followed, or the directory cannot be read.
        """
        self._loaded = self._read()

    def reload_if_changed(self) -> bool:
        """Read the files again if any of them changed; whether the policies in force are new ones."""
        try:
            fingerprint = self._fingerprint()
            if fingerprint in (self._loaded.fingerprint, self._refused):
                return False
            self._refused = fingerprint
            self._loaded = self._read()
        except PolicyError as exc:
            log.error("policy.reload_refused", error=str(exc))  # noqa: TRY400  # file and line say it all
            return False
        self._refused = None
        in_force = [one for routes in self.resolved.values() for one in routes.values()]
        log.info(
            "policy.reloaded",
            versions=sorted(one.policy.version for one in in_force),
            candidates=sorted(one.candidate.version for one in in_force if one.candidate),
        )
        return True

    async def watch(self, *, every_s: float) -> None:
        """Look for changes until cancelled."""
        while self._directory is not None:
            await asyncio.sleep(every_s)
            await asyncio.to_thread(self.reload_if_changed)

    def _fingerprint(self) -> Fingerprint:
        try:
            stats = [(path, path.stat()) for path in policy_paths(self._directory)]
        except OSError as exc:
            raise PolicyError(f"{self._directory}: cannot be read: {exc.strerror}") from exc
        return tuple((path.name, stat.st_mtime_ns, stat.st_size) for path, stat in stats)

    def _read(self) -> _Loaded:
        fingerprint = self._fingerprint()
        paths = policy_paths(self._directory)
        return _Loaded(read_folder(paths, packaged=self._packaged, detectors=self._detectors), fingerprint)
