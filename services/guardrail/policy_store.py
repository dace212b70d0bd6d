"""Holds the policies in force: the packaged default, and the files of `policy_dir`, reread when they change.

Used by `checking.py`; `bootstrap.py` loads it at start and runs `watch` as a background task.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from services.guardrail.detectors.detector import Detector
from services.guardrail.policy import PoliciesInForce, Policy
from services.guardrail.policy_file import PolicyError, default_policy, parse_policy

log = structlog.get_logger()

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}")
_DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class _Loaded:
    policies: Mapping[str, Policy]
    fingerprint: tuple[tuple[str, int, int], ...]


class PolicyStore:
    """The policy of each tenant. A change applies from the next check; a check keeps the policy it began with.

    Files that are wrong at start refuse the start. Files that become wrong later change nothing: the policies in
    force stay, and the error is logged, until the files are right again.
    """

    def __init__(self, directory: Path | None, *, detectors: Sequence[Detector]) -> None:
        self._directory = directory
        self._detectors = detectors
        self._packaged = default_policy(detectors)
        self._loaded = _Loaded({_DEFAULT: self._packaged}, ())
        self._refused: tuple[tuple[str, int, int], ...] | None = None

    def for_tenant(self, tenant: str) -> Policy:
        """The tenant's own policy, or the default."""
        policies = self._loaded.policies
        return policies.get(tenant, policies[_DEFAULT])

    def in_force(self, tenant: str, route: str = "") -> PoliciesInForce:
        """What a check of this tenant on this route goes by."""
        del route
        return PoliciesInForce(self.for_tenant(tenant))

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
        versions = sorted(policy.version for policy in self._loaded.policies.values())
        log.info("policy.reloaded", versions=versions)
        return True

    async def watch(self, *, every_s: float) -> None:
        """Look for changes until cancelled."""
        while self._directory is not None:
            await asyncio.sleep(every_s)
            await asyncio.to_thread(self.reload_if_changed)

    def _fingerprint(self) -> tuple[tuple[str, int, int], ...]:
        try:
            stats = [(path, path.stat()) for path in self._paths()]
        except OSError as exc:
            raise PolicyError(f"{self._directory}: cannot be read: {exc.strerror}") from exc
        return tuple((path.name, stat.st_mtime_ns, stat.st_size) for path, stat in stats)

    def _paths(self) -> list[Path]:
        if self._directory is None:
            return []
        return sorted(path for path in self._directory.iterdir() if path.suffix in {".yaml", ".yml"})

    def _read(self) -> _Loaded:
        fingerprint = self._fingerprint()
        sources = {path: self._source(path) for path in self._paths()}
        for path in sources:
            if not _TENANT.fullmatch(path.stem):
                raise PolicyError(f"{path}:1: the file's name must be a tenant's id or default, and .yaml")
        default = self._packaged
        for path, source in sources.items():
            if path.stem == _DEFAULT:
                default = self._parse(path, source, under=default)
        policies = {
            path.stem: self._parse(path, source, under=default)
            for path, source in sources.items()
            if path.stem != _DEFAULT
        }
        return _Loaded({**policies, _DEFAULT: replace(default, name=_DEFAULT)}, fingerprint)

    def _source(self, path: Path) -> str:
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise PolicyError(f"{path}:1: cannot be read as UTF-8 text: {exc}") from exc

    def _parse(self, path: Path, source: str, *, under: Policy) -> Policy:
        return parse_policy(source, name=path.stem, file=str(path), under=under, detectors=self._detectors)
