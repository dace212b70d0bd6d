"""Lays policy files over each other: the packaged policy, the folder's default, a tenant's own, each with its routes.

Used by `policy_store.py`. `<tenant>.shadow.yaml` is a candidate: what would hold if it took the place of
`<tenant>.yaml`, told beside what holds.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from services.guardrail.detectors.detector import Detector
from services.guardrail.policy import PoliciesInForce, Policy
from services.guardrail.policy_file import PolicyError, PolicyFile

DEFAULT = "default"
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}")
_CANDIDATE = ".shadow"

Resolved = Mapping[str, Mapping[str, PoliciesInForce]]
"""What is in force by tenant and by route; the empty route is every other one, `default` every other tenant."""


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of a folder by tenant."""

    own: Mapping[str, PolicyFile]
    candidates: Mapping[str, PolicyFile]


def policy_paths(directory: Path | None) -> list[Path]:
    """The policy files of a folder, in order."""
    if directory is None:
        return []
    return sorted(path for path in directory.iterdir() if path.suffix in {".yaml", ".yml"})


def read_folder(paths: Sequence[Path], *, packaged: Policy, detectors: Sequence[Detector]) -> Resolved:
    """All that the files state, laid over the packaged policy.

    Raises:
        PolicyError: files that cannot be followed; a line for each of them.
    """
    mistakes: list[str] = []
    files = _read_files(paths, detectors, mistakes)
    resolved: dict[str, Mapping[str, PoliciesInForce]] = {}
    for tenant in (DEFAULT, *sorted({*files.own, *files.candidates} - {DEFAULT})):
        try:
            resolved[tenant] = _resolve_tenant(tenant, files, packaged)
        except PolicyError as exc:
            mistakes += [str(exc)] if str(exc) not in mistakes else []
    if mistakes:
        raise PolicyError("\n".join(mistakes))
    return resolved


def _read_files(paths: Sequence[Path], detectors: Sequence[Detector], mistakes: list[str]) -> _Files:
    own, candidates = dict[str, PolicyFile](), dict[str, PolicyFile]()
    for path in paths:
        tenant = path.stem.removesuffix(_CANDIDATE)
        kept = candidates if path.stem.endswith(_CANDIDATE) else own
        try:
            _check_name(path, tenant, kept)
            kept[tenant] = PolicyFile(_source(path), file=str(path), detectors=detectors)
        except PolicyError as exc:
            mistakes.append(str(exc))
    return _Files(own, candidates)


def _check_name(path: Path, tenant: str, kept: Mapping[str, PolicyFile]) -> None:
    if not _TENANT.fullmatch(tenant):
        raise PolicyError(f"{path}:1: the file's name must be a tenant's id or default, and .yaml")
    if tenant in kept:
        raise PolicyError(f"{path}:1: {tenant} has another file of this kind; keep one of them")


def _resolve_tenant(tenant: str, files: _Files, packaged: Policy) -> Mapping[str, PoliciesInForce]:
    layers, candidate_layers = _layers(tenant, files)
    routes = {route for layer in (*layers, *candidate_layers) for route in layer.routes}
    resolved = {}
    for route in ("", *sorted(routes)):
        policy = _laid_over(packaged, layers, tenant=tenant, route=route)
        candidate = _laid_over(packaged, candidate_layers, tenant=tenant, route=route) if candidate_layers else None
        differs = candidate is not None and candidate.version != policy.version
        resolved[route] = PoliciesInForce(policy, candidate if differs else None)
    return resolved


def _layers(tenant: str, files: _Files) -> tuple[list[PolicyFile], list[PolicyFile]]:
    """The files in force, and those that would be if the tenant's candidate, or else the default's, were taken."""
    order = (DEFAULT, tenant) if tenant != DEFAULT else (DEFAULT,)
    changed = tenant if tenant in files.candidates else DEFAULT
    own = [files.own[name] for name in order if name in files.own]
    if changed not in files.candidates:
        return own, []
    taken = {**files.own, changed: files.candidates[changed]}
    return own, [taken[name] for name in order if name in taken]


def _laid_over(packaged: Policy, layers: Sequence[PolicyFile], *, tenant: str, route: str) -> Policy:
    name = f"{tenant}/{route}" if route else tenant
    policy = packaged
    for layer in layers:
        policy = layer.over(policy, name=name)
        if route in layer.routes:
            policy = layer.over_on(route, policy, name=name)
    return replace(policy, name=name)


def _source(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise PolicyError(f"{path}:1: cannot be read as UTF-8 text: {exc}") from exc
