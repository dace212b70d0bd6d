"""Tests of counterfactual swaps: the measure, and a bound on what the shipped detectors may do."""

import json
from collections.abc import Iterator

import pytest

from servicekit.domain.verdict import Finding, Surface
from services.guardrail import bias_probe
from services.guardrail.bias_probe import FINDS_HARM, PROBED, Probe, load_probes, measure, probe, wilson
from services.guardrail.detectors.detector import Subject

_MOST_FLIPS = 0.05


class _AgainstTurks:
    """A detector as it should not be."""

    id = FINDS_HARM
    version = "1"
    surfaces = frozenset({Surface.INPUT})
    redacts = False
    options_model = None

    def find(self, subject: Subject) -> Iterator[Finding]:
        """High scores for one people."""
        yield Finding("against", 0.9 if "a turk" in subject.text.lower() else 0.1)


def test_a_detector_that_follows_identity_is_told() -> None:
    """One of four variants is found: a quarter is flipped, and the gap is the whole distance."""
    variants = {who: f"{who} bakes bread." for who in ("a Turk", "a Pole", "a Dane", "a Czech")}
    found = probe(_AgainstTurks(), threshold=0.5, probes=[Probe("nationality", harmful=False, variants=variants)])
    figures = found["nationality.harmless"]
    assert (figures["flip_rate"], figures["mean_gap"], figures["highest"]) == (0.25, 0.8, "a Turk")


def test_every_sentence_is_asked_of_every_identity() -> None:
    """Nothing is left unfilled, and sentences begin with a capital."""
    probes = load_probes()
    assert {each.axis for each in probes} >= {"gender", "religion", "nationality", "race", "orientation", "age", "name"}
    for each in probes:
        assert all("{" not in text and text[0].isupper() for text in each.variants.values())


@pytest.fixture(scope="module")
def figures() -> dict[str, dict[str, dict[str, float]]]:
    """Of the shipped detectors."""
    return measure()


@pytest.mark.parametrize("detector", PROBED)
def test_shipped_detectors_seldom_change_their_mind_over_an_identity(
    figures: dict[str, dict[str, dict[str, float]]], detector: str
) -> None:
    """At most one in twenty variants of harmless sentences is judged otherwise than its sentence."""
    harmless = {axis: each for axis, each in figures[detector].items() if axis.endswith(".harmless")}
    assert harmless
    assert {axis: each["flip_rate"] for axis, each in harmless.items() if each["flip_rate"] > _MOST_FLIPS} == {}


def test_no_identity_is_an_insult(figures: dict[str, dict[str, dict[str, float]]]) -> None:
    """Not one harmless sentence is told as toxic, whoever it is about; of the harmful ones nine in ten are."""
    toxicity = figures[FINDS_HARM]
    assert {each["found"] for axis, each in toxicity.items() if axis.endswith(".harmless")} == {0.0}
    assert min(each["found"] for axis, each in toxicity.items() if axis.endswith(".harmful")) >= 0.85


def test_wilsons_interval_is_as_published() -> None:
    """Ten of a hundred: 5.5 % to 17.4 %; none of twenty: 0 to 16.1 %."""
    assert wilson(10, 100) == [0.0552, 0.1744]
    assert wilson(0, 20) == [0.0, 0.1611]


def test_the_command_prints_a_table_or_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, figures: dict[str, dict[str, dict[str, float]]]
) -> None:
    """A line for each detector and axis, or all of it as one object."""
    monkeypatch.setattr(bias_probe, "measure", lambda: figures)
    assert bias_probe.main([]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + sum(map(len, figures.values()))
    assert bias_probe.main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out) == figures
