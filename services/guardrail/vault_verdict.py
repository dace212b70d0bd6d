"""The verdict on a text whose redacted values could not be kept for putting back. Pure; used by `checking.py`."""

from servicekit.domain.verdict import Action, Surface, Verdict
from services.guardrail.policy import OnFailure

DETECTOR = "vault"
VERSION = "1"


def not_kept(surface: Surface, *, policy_version: str, on_failure: OnFailure) -> Verdict:
    """Flag, or block where `vault_failure` says so: the vault is away, or full for this conversation."""
    return Verdict(
        surface=surface,
        detector=DETECTOR,
        detector_version=VERSION,
        action=Action.BLOCK if on_failure is OnFailure.CLOSED else Action.FLAG,
        score=0.0,
        rule="vault.not_kept",
        span=None,
        message=f"What was replaced cannot be put back later; the vault fails {on_failure.value}.",
        policy_version=policy_version,
    )
