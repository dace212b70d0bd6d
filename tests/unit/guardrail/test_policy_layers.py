"""Tests of policies by tenant and route: what lies over what, candidates, options, the command that checks them."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from servicekit.domain.verdict import Action, Surface
from services.guardrail.detectors.detector import Detector
from services.guardrail.policy import DetectorPolicy, OnFailure, PoliciesInForce, Policy
from services.guardrail.policy_check import main
from services.guardrail.policy_file import PolicyError, PolicyFile, parse_policy
from services.guardrail.policy_folder import read_folder
from tests.unit.guardrail.guardrail_fakes import ToldDetector


class Weights(BaseModel):
    """Options within options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    words: float = 1.0


class ToldOptions(BaseModel):
    """Options of the detector under test."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float = Field(default=0.5, ge=0, le=1)
    topics: tuple[str, ...] = ()
    weights: Weights = Weights()


class OptionedDetector(ToldDetector):
    """A detector with options."""

    options_model = ToldOptions


DETECTORS: tuple[Detector, ...] = (OptionedDetector("told"), ToldDetector("other"))
PACKAGED = Policy(
    "default",
    {
        "told": DetectorPolicy({Surface.INPUT: Action.FLAG}, 0.5, OnFailure.OPEN, shadow=False, options=ToldOptions()),
        "other": DetectorPolicy({Surface.INPUT: Action.FLAG}, 0.5, OnFailure.OPEN, shadow=False),
    },
)


def folder(path: Path, **sources: str) -> dict[str, dict[str, PoliciesInForce]]:
    """What is in force under these files; `__` stands for the dot of a candidate."""
    for name, source in sources.items():
        (path / f"{name.replace('__', '.')}.yaml").write_text(source, "utf-8")
    resolved = read_folder(sorted(path.iterdir()), packaged=PACKAGED, detectors=DETECTORS)
    return {tenant: dict(routes) for tenant, routes in resolved.items()}


def does(action: str) -> str:
    """A file that does this about the input."""
    return f"detectors: {{told: {{input: {action}}}}}"


def on_input(one: PoliciesInForce) -> Action | None:
    """What is done with what the detector finds in the input."""
    return one.policy.detectors["told"].actions.get(Surface.INPUT)


def parsed(source: str) -> Policy:
    """The file as tenant acme's."""
    return parse_policy(source, name="acme", file="acme.yaml", under=PACKAGED, detectors=DETECTORS)


def test_the_nearest_statement_holds(tmp_path: Path) -> None:
    """Route over tenant, tenant over the folder's default and its routes, those over the packaged policy."""
    found = folder(
        tmp_path,
        default="detectors: {told: {input: allow}}\nroutes: {sales: {detectors: {told: {input: redact}}}}",
        acme="routes: {support: {detectors: {told: {input: block}}}}",
        globex=does("off"),
    )
    assert on_input(found["default"][""]) is Action.ALLOW
    assert on_input(found["default"]["sales"]) is Action.REDACT
    assert {route: on_input(one) for route, one in found["acme"].items()} == {
        "": Action.ALLOW,
        "sales": Action.REDACT,
        "support": Action.BLOCK,
    }
    assert on_input(found["globex"]["sales"]) is None
    assert found["acme"]["support"].policy.version.startswith("acme/support@")


def test_a_candidate_is_what_would_hold_in_the_files_place(tmp_path: Path) -> None:
    """Its version is the one that it will have; the tenant's own file has no say in it, the default has."""
    found = folder(tmp_path, default="shadow: false", acme="shadow: true", acme__shadow=does("block"))
    candidate = found["acme"][""].candidate
    assert candidate is not None
    assert (on_input(PoliciesInForce(candidate)), candidate.shadow) == (Action.BLOCK, False)
    (tmp_path / "acme.shadow.yaml").rename(tmp_path / "acme.yaml")
    taken = folder(tmp_path)["acme"][""]
    assert taken.policy.version == candidate.version
    assert taken.candidate is None


def test_a_candidate_of_the_default_concerns_all_without_their_own(tmp_path: Path) -> None:
    """Tenants' files lie over it as they will; where nothing would change there is nothing to compare."""
    found = folder(
        tmp_path,
        default__shadow=does("block"),
        acme=does("allow"),
        globex="shadow: true",
        globex__shadow=does("redact"),
    )
    assert found["acme"][""].candidate is None
    assert found["default"][""].candidate is not None
    globex = found["globex"][""].candidate
    assert globex is not None
    assert on_input(PoliciesInForce(globex)) is Action.REDACT


def test_a_policy_can_be_all_shadow() -> None:
    """One word at the top, for every route or for one."""
    assert parsed("shadow: true").shadow
    file = PolicyFile("routes: {a: {shadow: true}}", file="f", detectors=DETECTORS)
    assert file.over_on("a", PACKAGED, name="x").shadow
    assert not file.over(PACKAGED, name="x").shadow


def test_options_are_the_detectors_own() -> None:
    """What is stated changes what lies under it; the rest stays; the version follows."""
    policy = parsed("detectors: {told: {timeout_ms: 250, options: {topics: [a, b], weights: {words: 2}}}}")
    rule = policy.detectors["told"]
    assert rule.options == ToldOptions(threshold=0.5, topics=("a", "b"), weights=Weights(words=2))
    assert rule.timeout_ms == 250
    assert policy.version.split("@")[1] != PACKAGED.version.split("@")[1]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("detectors:\n told:\n  timeout_ms: 0", "acme.yaml:3: told.timeout_ms must be 1 to 60000, got '0'"),
        ("detectors:\n other:\n  options: {}", "acme.yaml:3: other has no options"),
        (
            "detectors:\n told:\n  options:\n   treshold: 1",
            "acme.yaml:4: unknown name in told.options: 'treshold'; did you mean 'threshold'?",
        ),
        (
            "detectors:\n told:\n  options:\n   topics: []\n   threshold: 2",
            "acme.yaml:5: told.options.threshold: Input should be less than or equal to 1, got 2",
        ),
        (
            "detectors:\n told:\n  options:\n   topics:\n   - a\n   - 1",
            "acme.yaml:6: told.options.topics.1: Input should be a valid string, got 1",
        ),
        (
            "detectors:\n told:\n  options:\n   weights:\n    word: 1",
            "acme.yaml:5: unknown name in told.options.weights: 'word'; did you mean 'words'?",
        ),
        (
            "detectors:\n told:\n  options:\n   topics: !!python/name:os.system",
            "acme.yaml:4: told.options.topics cannot",
        ),
        ("routes: [a]", "acme.yaml:1: routes must be a mapping"),
        ("routes:\n a:\n  routes: {}", "acme.yaml:3: unknown name in routes.a: 'routes'"),
        ("routes:\n a: {}\n a: {}", "acme.yaml:3: a is stated twice in routes"),
        ("routes:\n '': {}", "acme.yaml:2: a route's name has 1 to 64 characters"),
        (
            "routes:\n a:\n  detectors:\n   tolt: {}",
            "acme.yaml:4: unknown name in detectors: 'tolt'; did you mean 'told'?",
        ),
        ("shadow: perhaps", "acme.yaml:1: unknown value of shadow: 'perhaps'"),
    ],
)
def test_mistakes_in_routes_and_options_are_told_with_their_line(source: str, message: str) -> None:
    """Wherever in the file they stand."""
    with pytest.raises(PolicyError) as caught:
        parsed(source)
    assert str(caught.value).startswith(message)


def test_every_wrong_file_is_told(tmp_path: Path) -> None:
    """One mistake of each file at a time, not of the first file only."""
    with pytest.raises(PolicyError) as caught:
        folder(tmp_path, acme=does("explode"), globex__shadow="detector: {}")
    first, second = str(caught.value).splitlines()
    assert "acme.yaml:1: unknown value of told.input: 'explode'" in first + second
    assert "globex.shadow.yaml:1: unknown name in the policy: 'detector'" in first + second


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "input": st.sampled_from(["off", "allow", "flag", "redact", "block"]),
        "output": st.sampled_from(["off", "flag", "block"]),
        "min_score": st.sampled_from([0.0, 0.25, 1.0]),
        "on_failure": st.sampled_from(["open", "closed"]),
        "timeout_ms": st.integers(1, 60_000),
        "shadow": st.booleans(),
    },
)
STATED = st.fixed_dictionaries({}, optional={"told": SETTINGS, "other": SETTINGS})


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STATED, min_size=1, max_size=4))
def test_merging_is_the_last_word_on_each_setting(layers: list[dict[str, dict[str, object]]]) -> None:
    """For each setting of each detector the last layer that states it holds, whatever the others say."""
    expected = {
        name: rule | {key: value for layer in layers for key, value in layer.get(name, {}).items()}
        for name, rule in PACKAGED.described()["detectors"].items()
    }
    policy = PACKAGED
    for layer in layers:
        policy = parse_policy(
            json.dumps({"detectors": layer}), name="acme", file="f", under=policy, detectors=DETECTORS
        )
    assert policy.described()["detectors"] == expected
    again = parse_policy("", name="acme", file="f", under=policy, detectors=DETECTORS)
    assert again.version == policy.version


def test_the_command_prints_what_is_in_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every tenant and route in full, as JSON or YAML; a mistake is its line and status 1."""
    file = tmp_path / "acme.yaml"
    file.write_text("routes: {support: {detectors: {pii.email: {input: block}}}}", "utf-8")
    assert main([str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["policies"]
    assert [(one["tenant"], one["route"]) for one in told] == [("default", ""), ("acme", ""), ("acme", "support")]
    assert told[2]["detectors"]["pii.email"]["input"] == "block"
    assert main([str(tmp_path)]) == 0
    assert "version: acme/support@" in capsys.readouterr().out
    file.write_text("detectors:\n  pii.emial: {}", "utf-8")
    assert main([str(tmp_path)]) == 1
    assert "acme.yaml:2: unknown name in detectors: 'pii.emial'; did you mean 'pii.email'?" in capsys.readouterr().err
