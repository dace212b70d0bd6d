"""Tests of calibration cards: every detector has one, and each says what it was measured on and where it is weak."""

import json

import pytest
from pydantic import ValidationError

from services.guardrail.cards import Card, main, read_cards, rows
from services.guardrail.detectors.catalogue import all_detectors

WHOLE = {
    "id": "bees",
    "purpose": "bees",
    "threshold": 0.5,
    "data": [{"source": "a meadow", "licence": "MIT"}],
    "figures": {"recall": 0.9},
    "limits": ["wasps pass"],
}
DETECTORS = [detector.id for detector in all_detectors()]


@pytest.mark.parametrize("detector", DETECTORS)
def test_every_detector_has_a_card(detector: str) -> None:
    """No detector ships without saying what it was measured on."""
    assert detector in read_cards()


def test_cards_speak_for_detectors_that_there_are() -> None:
    """A card of a detector that was renamed or taken out is told."""
    assert set(read_cards()) - set(DETECTORS) == set()


@pytest.mark.parametrize("field", ["id", "purpose", "threshold", "data", "figures", "limits"])
def test_a_card_that_says_too_little_is_refused(field: str) -> None:
    """Purpose, threshold, data, figures and known weaknesses are needed, and the message names the missing one."""
    assert Card.model_validate(WHOLE).speaks_for == ("bees",)
    with pytest.raises(ValidationError, match=field):
        Card.model_validate({name: value for name, value in WHOLE.items() if name != field})


def test_nothing_measured_needs_a_reason() -> None:
    """Empty figures are refused unless the score is said to be no statistic."""
    with pytest.raises(ValidationError, match="nothing to measure"):
        Card.model_validate({**WHOLE, "figures": {}})
    assert Card.model_validate({**WHOLE, "figures": {}, "data": {}, "score": "a decision procedure"})


def test_the_command_prints_every_detector(capsys: pytest.CaptureFixture[str]) -> None:
    """As a table for people and as one JSON object."""
    assert main([]) == 0
    table = capsys.readouterr().out
    assert all(f"{row.detector}  version {row.version}" in table for row in rows())
    assert main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == {row.detector for row in rows()}
