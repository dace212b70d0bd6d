"""Prompt templates are versioned, hashed, and checked before anything is asked."""

import hashlib
from pathlib import Path

import pytest

from servicekit.domain.chunk import Chunk, ScoredChunk
from servicekit.domain.prompt import ContextChunk, Message, Role
from servicekit.errors import InvalidRequest, NotFound
from services.generator.templates import load_prompts, parse_template

CONTEXT = (ContextChunk(1, ScoredChunk(Chunk("c", "d", 1, "", "It opens at six.", title="Harbour"), 1, 1.0)),)
GOOD = b"id: x\nversion: '3'\nsystem: 'S {{ question }}'\nuser: 'U {{ question }}'\n"


def test_packaged_prompt_holds_chunks_under_their_numbers() -> None:
    """The default prompt shows each chunk with the number it is cited by, then history, then the question."""
    history = (Message(Role.ASSISTANT, "Earlier."),)
    messages = load_prompts(None).get("grounded-answer").messages("When?", CONTEXT, history)
    assert [message.role for message in messages] == [Role.SYSTEM, Role.ASSISTANT, Role.USER]
    assert "[1] Harbour\nIt opens at six." in messages[0].content
    assert messages[-1].content == "When?"


def test_hash_is_of_the_file() -> None:
    """The stamped hash is the SHA-256 of the file's bytes."""
    assert parse_template(GOOD, file="x.yaml").ref.hash == hashlib.sha256(GOOD).hexdigest()


def test_empty_system_message_is_left_out() -> None:
    """A template without instructions for the case sends none."""
    messages = load_prompts(None).get("plain").messages("When?", (), ())
    assert [message.role for message in messages] == [Role.USER]


def test_question_is_not_a_template() -> None:
    """Braces in a question or a chunk are text."""
    messages = load_prompts(None).get("plain").messages("{{ 7 * 7 }} {% raw %}", (), ())
    assert messages[-1].content == "{{ 7 * 7 }} {% raw %}"


def test_folder_adds_and_replaces(tmp_path: Path) -> None:
    """A template of the folder stands beside the packaged ones, or in place of one with its id."""
    (tmp_path / "a.yaml").write_bytes(GOOD)
    (tmp_path / "b.yaml").write_bytes(GOOD.replace(b"id: x", b"id: plain"))
    prompts = load_prompts(tmp_path)
    assert prompts.get("x").ref.version == "3"
    assert prompts.get("plain").ref.version == "3"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (GOOD.replace(b"{{ question }}", b"{{ answer }}"), "uses 'answer'"),
        (GOOD.replace(b"{{ question }}", b"{{ question"), "line 1"),
        (GOOD.replace(b"id: x", b"name: x"), "exactly the fields"),
        (GOOD.replace(b"'3'", b"3"), "version must be a text"),
        (GOOD.replace(b"S {{ question }}", b"{{ question.__class__.__mro__ }}"), "cannot be rendered"),
        (b"\x80", "is no YAML"),
        (b"a: [", "is no YAML"),
        (b"- a", "exactly the fields"),
    ],
)
def test_bad_template_fails_at_start(source: bytes, told: str) -> None:
    """A template that cannot work is refused with file and fault, never at the first question."""
    with pytest.raises(InvalidRequest) as raised:
        parse_template(source, file="bad.yaml")
    assert "bad.yaml" in raised.value.message
    assert told in raised.value.message


def test_unknown_prompt_names_the_known() -> None:
    """Asking for a prompt that is not there says which are."""
    with pytest.raises(NotFound, match="grounded-answer, plain"):
        load_prompts(None).get("x")


def test_missing_folder_is_told(tmp_path: Path) -> None:
    """A folder of the settings that is not there is a fault."""
    with pytest.raises(InvalidRequest, match="is no folder"):
        load_prompts(tmp_path / "none")
