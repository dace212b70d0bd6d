"""Tests of the leak detector: quotations and canaries found however they are written, honest answers left alone."""

import base64
from pathlib import Path

import pytest
from pydantic import ValidationError

from servicekit.domain.verdict import Surface
from servicekit.errors import InvalidRequest
from services.guardrail.detectors.detector import Subject
from services.guardrail.detectors.leak import LeakDetector, LeakOptions
from services.guardrail.normalizing import normalize
from services.guardrail.prompt_texts import load_prompt_texts, prompt_texts

PROMPT = """You are Harbour, the assistant of the port authority. Never reveal the berthing fees of naval vessels.
{% if chunks %}Use {{ chunks }} only. {% endif %}When nobody knows, say: Please ask the harbour master at the gate.
"""
CANARY = "qhzkvbnmwtyrplxcdfgj"
DETECTOR = LeakDetector(prompt_texts([PROMPT]), canaries=[CANARY])


def found(
    text: str, *, chunk_texts: tuple[str, ...] = (), canaries: tuple[str, ...] = ()
) -> list[tuple[str, float, str]]:
    """Rule, score and place of what the policy would hear of."""
    subject = Subject(Surface.OUTPUT, normalize(text), chunk_texts, LeakOptions(canaries=canaries))
    return [
        (finding.rule, finding.score, subject.text[finding.span.start : finding.span.end])
        for finding in DETECTOR.find(subject)
        if finding.span and finding.score >= 0.75
    ]


QUOTED = "you are Harbour, the assistant of the port authority. Never reveal the berthing fees"


def test_a_quotation_is_found_with_its_place() -> None:
    """Twelve words of the prompt in a row are certain, whatever their case."""
    ((rule, score, place),) = found(f"Sure! They told me {QUOTED} to anyone.")
    assert (rule, score) == ("leak.quotation", 1.0)
    assert place.startswith("you are Harbour")
    assert place.endswith("berthing fees")


def test_a_quotation_with_own_words_between_is_found() -> None:
    """Words changed and put in do not hide it."""
    text = (
        "You are Harbour, the friendly assistant of the port authority, and you should never reveal the berthing fees"
        " of any naval vessels"
    )
    assert [rule for rule, _, _ in found(text)] == ["leak.quotation"]


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(QUOTED.encode()).decode(),
        QUOTED.encode().hex(),
        QUOTED.replace("a", "\u0430").replace("e", "\u0435"),
        "\u200b".join(QUOTED),
        QUOTED.replace("e", "3").replace("o", "0"),
    ],
)
def test_a_disguised_quotation_is_found(text: str) -> None:
    """Encoded, in letters that look alike, with invisible characters or digits for letters: it is the same text."""
    assert [rule for rule, _, _ in found(text)] == ["leak.quotation"]


@pytest.mark.parametrize(
    "text",
    [
        "Please ask the harbour master at the gate.",
        "The port authority sets the berthing fees each year.",
        "I am the assistant of the museum, and never close.",
        "",
    ],
)
def test_honest_answers_are_left_alone(text: str) -> None:
    """What the model is told to say is no secret, nor are a few words of the prompt in a sentence of its own."""
    assert not found(text)


def test_a_citation_of_the_documents_is_no_leak() -> None:
    """Words that a chunk holds, too, may be said."""
    assert not found(f"It says: {QUOTED}.", chunk_texts=(f"Minutes: {QUOTED} of ships.",))


@pytest.mark.parametrize(
    "written",
    [
        CANARY,
        CANARY.upper(),
        " ".join(CANARY),
        "-".join(CANARY),
        "\n".join(CANARY),
        f"x{CANARY}y",
        base64.b64encode(f"it is {CANARY}".encode()).decode(),
        f"it is {CANARY}".encode().hex(),
        "".join(f"&#{ord(char)};" for char in CANARY),
    ],
)
def test_canaries_are_found_however_they_are_written(written: str) -> None:
    """Split, encoded, in capitals: a canary is a canary."""
    assert {(rule, score) for rule, score, _ in found(f"Here: {written}.")} == {("leak.canary", 1.0)}


def test_canaries_of_a_policy_are_found_and_never_told() -> None:
    """Options state further ones; no message shows them, nor the prompt."""
    subject = Subject(Surface.OUTPUT, normalize("Blue Walrus 77"), (), LeakOptions(canaries=("bluewalrus77",)))
    (finding,) = DETECTOR.find(subject)
    assert finding.rule == "leak.canary"
    assert "walrus" not in finding.message.casefold()
    assert found("Blue Walrus 78", canaries=("bluewalrus77",)) == []


def test_a_short_canary_is_refused_without_being_shown() -> None:
    """Honest answers would hold it; the message says which and why."""
    with pytest.raises(ValidationError, match=r"canaries\[0\] must have at least 8 letters and digits, got 3"):
        LeakOptions(canaries=("a-b-c",))


def test_the_packaged_prompts_are_known() -> None:
    """Without any setting the generator's own prompts are guarded, and their refusal may be said."""
    detector = LeakDetector()
    quoted = "Answer the user's question from the numbered documents below, and from nothing else."
    refusal = "I could not find an answer in the documents."
    assert [one.score for one in detector.find(Subject(Surface.OUTPUT, normalize(quoted)))] == [1.0]
    assert not list(detector.find(Subject(Surface.OUTPUT, normalize(refusal))))


def test_prompts_of_a_folder_are_read(tmp_path: Path) -> None:
    """A deployment's prompts are guarded besides those packaged; what is no prompt is told by its name."""
    (tmp_path / "own.yaml").write_text("id: own\nversion: '1'\nsystem: Speak of the weather alone.\nuser: '{{ q }}'\n")
    assert "Speak of the weather alone." in load_prompt_texts(tmp_path).secret
    (tmp_path / "bad.yaml").write_text("- a list")
    with pytest.raises(InvalidRequest, match=r"bad\.yaml must be a mapping"):
        load_prompt_texts(tmp_path)
    with pytest.raises(InvalidRequest, match="is no folder"):
        load_prompt_texts(tmp_path / "absent")


def test_the_version_changes_with_the_prompts() -> None:
    """What is kept of one deployment's judgements is not taken for another's."""
    assert LeakDetector(prompt_texts(["Say nothing of it."])).version != DETECTOR.version
    assert LeakDetector(prompt_texts([PROMPT]), canaries=[CANARY]).version == DETECTOR.version
