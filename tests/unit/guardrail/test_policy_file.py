"""Tests of policy files: what they state, and that every mistake is told with file and line."""

import pytest

from servicekit.domain.verdict import Action, Surface
from services.guardrail.detectors.catalogue import all_detectors
from services.guardrail.policy import OnFailure, Policy
from services.guardrail.policy_file import MAX_FILE_CHARS, PolicyError, default_policy, parse_policy

DETECTORS = all_detectors()
DEFAULT = default_policy(DETECTORS)


def parsed(source: str) -> Policy:
    """The file as tenant acme's."""
    return parse_policy(source, name="acme", file="acme.yaml", under=DEFAULT, detectors=DETECTORS)


def test_default_policy_names_every_detector() -> None:
    """The packaged policy says something of each detector there is, for a surface that it judges."""
    assert set(DEFAULT.detectors) == {detector.id for detector in DETECTORS}
    assert all(DEFAULT.detectors[detector.id].actions for detector in DETECTORS)


def test_default_policy_keeps_what_it_promises() -> None:
    """Addresses in documents are flagged, redacted elsewhere; injected chunks are dropped."""
    email = DEFAULT.detectors["pii.email"].actions
    assert email == {Surface.INPUT: Action.REDACT, Surface.RETRIEVED: Action.FLAG, Surface.OUTPUT: Action.REDACT}
    assert DEFAULT.detectors["injection"].actions[Surface.RETRIEVED] is Action.BLOCK
    assert DEFAULT.detectors["groundedness"].actions == {Surface.OUTPUT: Action.FLAG}


def test_a_file_states_only_what_differs() -> None:
    """What a tenant's file leaves out stays as in the policy under it."""
    policy = parsed(
        "detectors:\n  pii.email:\n    input: block\n    retrieved: off\n    on_failure: open\n    shadow: true"
    )
    email = policy.detectors["pii.email"]
    assert email.actions == {Surface.INPUT: Action.BLOCK, Surface.OUTPUT: Action.REDACT}
    assert email.on_failure is OnFailure.OPEN
    assert email.shadow
    assert email.min_score == DEFAULT.detectors["pii.email"].min_score
    assert policy.detectors["secret"] == DEFAULT.detectors["secret"]


def test_version_follows_the_content() -> None:
    """The same content is the same version whatever its order and comments; other content is another."""
    one = parsed("detectors: {pii.phone: {input: flag, output: flag}}")
    other = parsed("# a comment\ndetectors:\n  pii.phone:\n    output: flag\n    input: flag\n")
    assert one.version == other.version
    assert one.version.startswith("acme@")
    assert one.version.split("@")[1] != DEFAULT.version.split("@")[1]
    assert parsed("").version.split("@")[1] == DEFAULT.version.split("@")[1]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "detectors:\n  pii.emial:\n    input: flag",
            "acme.yaml:2: unknown name in detectors: 'pii.emial'; did you mean 'pii.email'?",
        ),
        ("detector: {}", "acme.yaml:1: unknown name in the policy: 'detector'; did you mean 'detectors'?"),
        (
            "detectors:\n  secret:\n    inptu: flag",
            "acme.yaml:3: unknown name in secret: 'inptu'; did you mean 'input'?",
        ),
        (
            "detectors:\n  secret:\n    input: flga",
            "acme.yaml:3: unknown value of secret.input: 'flga'; did you mean 'flag'?",
        ),
        ("detectors:\n  secret:\n    min_score: 2", "acme.yaml:3: secret.min_score must be 0 to 1, got '2'"),
        ("detectors:\n  secret:\n    min_score: nan", "acme.yaml:3: secret.min_score must be 0 to 1, got 'nan'"),
        ("detectors:\n  secret:\n    on_failure: ajar", "acme.yaml:3: unknown value of secret.on_failure: 'ajar'"),
        ("detectors:\n  secret:\n    shadow: yes", "acme.yaml:3: unknown value of secret.shadow: 'yes'"),
        ("detectors:\n  injection:\n\n    input: redact", "acme.yaml:4: injection cannot redact"),
        (
            "detectors:\n  groundedness:\n    input: flag",
            "acme.yaml:3: groundedness judges output only: input must be off",
        ),
        ("detectors:\n  secret:\n    input: [flag]", "acme.yaml:3: secret.input must be a single value"),
        ("detectors:\n  secret:\n    input: flag\n    input: block", "acme.yaml:4: input is stated twice in secret"),
        ("detectors:\n  secret: flag", "acme.yaml:2: secret must be a mapping"),
        ("- detectors", "acme.yaml:1: the policy must be a mapping"),
        ("detectors:\n  secret: {input: flag", "acme.yaml:2: not YAML"),
        ("a: 1\n---\nb: 2", "acme.yaml:2: not YAML"),
        ("\x00", "acme.yaml:1: not YAML"),
        ("? [a]\n: b", "acme.yaml:1: unknown name in the policy"),
        ("#" * (MAX_FILE_CHARS + 1), "acme.yaml:1: a policy has at most"),
    ],
)
def test_mistakes_are_told_with_their_line(source: str, message: str) -> None:
    """A file that cannot be followed is refused with its name, the line, and what could have been meant."""
    with pytest.raises(PolicyError) as caught:
        parsed(source)
    assert str(caught.value).startswith(message)
