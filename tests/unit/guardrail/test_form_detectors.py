"""Tests of the detectors of form: the language of a text, and whether an answer is the JSON that a policy wants."""

from typing import Any

import pytest
from pydantic import ValidationError

from servicekit.domain.verdict import Finding, Surface
from services.guardrail.detectors.detector import Subject
from services.guardrail.detectors.language import LanguageDetector, LanguageOptions
from services.guardrail.detectors.output_schema import OutputSchemaDetector, OutputSchemaOptions
from services.guardrail.normalizing import normalize

GERMAN = "Der Hafen öffnet um sechs Uhr morgens und schließt am Abend um zehn."
ENGLISH = "The harbour opens at six in the morning and closes at ten in the evening."
SCHEMA = {"type": "object", "properties": {"hour": {"type": "integer"}}, "required": ["hour"]}


def language(text: str, *allowed: str) -> list[Finding]:
    """What is found where these are allowed."""
    options = LanguageOptions(allowed=allowed)
    return list(LanguageDetector().find(Subject(Surface.OUTPUT, normalize(text), (), options)))


def form(text: str, *, whole: bool = True, **options: Any) -> list[Finding]:
    """What is found under these options."""
    stated = OutputSchemaOptions.model_validate(options)
    return list(OutputSchemaDetector().find(Subject(Surface.OUTPUT, normalize(text), (), stated, whole=whole)))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (GERMAN, "de"),
        ("Le port ouvre à six heures du matin et ferme à dix heures du soir.", "fr"),
        ("El puerto abre a las seis de la mañana y cierra por la noche.", "es"),
        ("Порт открывается в шесть утра и закрывается в десять вечера.", "ru"),
        ("港口早上六点开放晚上十点关闭请注意时间", "zh"),
        ("港は朝六時に開き、夜十時に閉まります。", "ja"),
    ],
)
def test_another_language_is_found_and_named(text: str, code: str) -> None:
    """A sentence suffices; the message names its language, and what is allowed."""
    (finding,) = language(text, "en")
    assert finding.score > 0.9
    assert finding.message == f"Reads as {code}; allowed: en."
    assert language(text, "en", code) == []


@pytest.mark.parametrize(
    "text",
    [
        ENGLISH,
        "ja, gut",
        "",
        "`x = [int(zeile) for zeile in open('datei.txt')]; print(sum(x))`",
        f"{ENGLISH} It says so at https://hafen.example/oeffnungszeiten-und-preise-fuer-liegeplaetze-im-hafen.",
        f"{ENGLISH}\n```\nfür zeile in datei: drucke die zeile und schließe sie danach wieder ab\n```",
    ],
)
def test_english_and_short_texts_and_code_pass(text: str) -> None:
    """Too short to tell, code and addresses are no other language."""
    assert language(text, "en") == []


def test_without_languages_any_may_be_written() -> None:
    """The packaged policy states none."""
    assert language(GERMAN) == []
    assert list(LanguageDetector().find(Subject(Surface.INPUT, normalize(GERMAN)))) == []


def test_an_unknown_language_is_refused() -> None:
    """A name or another code would forbid every text."""
    with pytest.raises(ValidationError, match="ISO 639-1 codes, got 'english'"):
        LanguageOptions(allowed=("english",))


@pytest.mark.parametrize("text", ["a" * 65_000, "é" * 65_000, "` " * 30_000, "http://" * 9_000, "语" * 65_000])
def test_language_of_hostile_texts(text: str) -> None:
    """Long texts are sampled."""
    assert len(language(text, "en")) <= 1


def test_answers_that_satisfy_the_schema_pass() -> None:
    """JSON as wanted, however it is laid out."""
    assert form(' {"hour": 6}\n', json_schema=SCHEMA) == []
    assert form("[1, 2]", must_be_json=True) == []
    assert form("Any words.") == []


@pytest.mark.parametrize(
    ("text", "options", "rule", "told"),
    [
        ("At six.", {"must_be_json": True}, "output_schema.no_json", "it is no JSON"),
        ("At six.", {"json_schema": SCHEMA}, "output_schema.violated", "it is no JSON"),
        ('{"hour": "six"}', {"json_schema": SCHEMA}, "output_schema.violated", "#/properties/hour/type"),
        ("{}", {"json_schema": SCHEMA}, "output_schema.violated", "#/required"),
        ("[" * 60_000, {"must_be_json": True}, "output_schema.no_json", "it is no JSON"),
    ],
)
def test_answers_of_another_form_are_found(text: str, options: dict[str, Any], rule: str, told: str) -> None:
    """The message names the part of the schema, and nothing of the answer."""
    (finding,) = form(text, **options)
    assert (finding.rule, finding.score, finding.span) == (rule, 1.0, None)
    assert told in finding.message
    assert "six" not in finding.message


def test_a_piece_of_an_answer_has_no_form() -> None:
    """Only the whole is judged."""
    assert form('{"hour":', whole=False, json_schema=SCHEMA) == []


def test_a_schema_that_cannot_be_followed_is_refused() -> None:
    """Mistakes show when the policy is read."""
    with pytest.raises(ValidationError, match="is no JSON schema"):
        OutputSchemaOptions(json_schema={"type": "objekt"})
