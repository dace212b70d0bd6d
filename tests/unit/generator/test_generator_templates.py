"""Prompts are versioned, hashed, and checked by file, line and field before anything is asked."""

from importlib.resources import files
from pathlib import Path

import pytest

from servicekit.domain.chunk import Chunk, ScoredChunk
from servicekit.domain.prompt import ContextChunk, Message, Role
from servicekit.errors import InvalidRequest, NotFound
from services.generator.prompt_files import parse_template
from services.generator.templates import load_prompts

CHUNK = Chunk("c", "d", 1, "", "It opens at six.", title="Harbour", heading_path=("Hours", "Summer"), source_uri="u")
CONTEXT = (ContextChunk(1, ScoredChunk(CHUNK, 1, 1.0)),)
GOOD = b"""# A comment.
id: x
version: '3'
system: |
  Line one.
  {% for chunk in chunks %}
  [{{ chunk.number }}] {{ chunk.title }}
  {% endfor %}
user: 'U {{ question }}'
few_shot:
  id: pair
  examples:
    - question: Is it open?
      answer: At six [1].
"""


def test_packaged_prompt_holds_chunks_under_their_numbers() -> None:
    """The default prompt shows each chunk with the number it is cited by, then history, then the question."""
    history = (Message(Role.ASSISTANT, "Earlier."),)
    messages = load_prompts(None).get("grounded-answer").messages("When?", CONTEXT, history)
    assert [message.role for message in messages] == [Role.SYSTEM, Role.ASSISTANT, Role.USER]
    assert "[1] Harbour\nIt opens at six." in messages[0].content
    assert messages[-1].content == "When?"


def test_hash_is_of_what_reaches_the_model() -> None:
    """Comments, layout, id and version leave the hash as it is; any text that a model reads changes it."""
    digest = parse_template(GOOD, file="x.yaml").ref.hash
    same = GOOD.replace(b"# A comment.", b"# Another.").replace(b"'U {{ question }}'", b'"U {{ question }}"')
    assert parse_template(same.replace(b"'3'", b"'4'"), file="x.yaml").ref.hash == digest
    for old, new in ((b"Line one", b"Line 1"), (b"'U ", b"'V "), (b"At six", b"At ten")):
        assert parse_template(GOOD.replace(old, new), file="x.yaml").ref.hash != digest


def test_few_shot_examples_stand_before_the_history() -> None:
    """Examples are turns between the instructions and the conversation; their set is named in the record."""
    template = parse_template(GOOD, file="x.yaml")
    messages = template.messages("When?", CONTEXT, (Message(Role.USER, "Hello."),))
    assert [message.content for message in messages[1:]] == ["Is it open?", "At six [1].", "Hello.", "U When?"]
    assert template.ref.few_shot_set == "pair"


def test_all_of_a_chunk_can_be_shown() -> None:
    """A template can name a chunk's number, title, headings, source and text."""
    system = "{% for c in chunks %}{{ c.number }}|{{ c.title }}|{{ c.heading }}|{{ c.source }}|{{ c.text }}{% endfor %}"
    template = parse_template(
        f"id: x\nversion: '1'\nsystem: '{system}'\nuser: '{{{{ question }}}}'\n".encode(), file="x.yaml"
    )
    assert template.messages("q", CONTEXT, ())[0].content == "1|Harbour|Hours > Summer|u|It opens at six."


def test_empty_system_message_is_left_out() -> None:
    """A template without instructions for the case sends none."""
    messages = load_prompts(None).get("plain").messages("When?", (), ())
    assert [message.role for message in messages] == [Role.USER]


def test_question_is_not_a_template() -> None:
    """Braces in a question or a chunk are text."""
    messages = load_prompts(None).get("plain").messages("{{ 7 * 7 }} {% raw %}", (), ())
    assert messages[-1].content == "{{ 7 * 7 }} {% raw %}"


def test_newest_version_is_the_default_and_any_can_be_pinned(tmp_path: Path) -> None:
    """Versions of one prompt stand side by side, 10 newer than 9; `id@version` names one."""
    for version in ("9", "10", "1.2"):
        (tmp_path / f"x-{version}.yaml").write_bytes(GOOD.replace(b"'3'", f"'{version}'".encode()))
    prompts = load_prompts(tmp_path)
    assert prompts.get("x").ref.version == "10"
    assert prompts.get("x@1.2").ref.version == "1.2"
    with pytest.raises(NotFound, match=r"no version '3' of prompt 'x'; known: 1\.2, 9, 10"):
        prompts.get("x@3")


def test_own_prompts_come_before_packaged_ones(tmp_path: Path) -> None:
    """A prompt of the folder is the default of its id even where a packaged version is newer, which can be pinned."""
    (tmp_path / "b.yaml").write_bytes(GOOD.replace(b"id: x", b"id: plain").replace(b"'3'", b"'0'"))
    prompts = load_prompts(tmp_path)
    assert prompts.get("plain").ref.version == "0"
    assert prompts.get("plain@1").ref.version == "1"


def test_the_same_version_twice_is_refused(tmp_path: Path) -> None:
    """Two files cannot both be one version of one prompt."""
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_bytes(GOOD)
    with pytest.raises(InvalidRequest, match=r"b\.yaml: prompt 'x' has version '3' in .*a\.yaml too"):
        load_prompts(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (b"chunk.title", b"chunk.titel", "line 7: system: cannot be rendered: .*'titel'"),
        (b"Line one", b"{{ answer }}", "line 5: system: uses 'answer'; known variables: canary, chunks, question"),
        (b"{% endfor %}", b"{% endif %}", "line 8: system: .*unknown tag 'endif'"),
        (b"'U {{ question }}'", b"'U {{ question'", "line 9: user: "),
        (b"'U {{ question }}'", b"'U'", "line 9: user: does not hold {{ question }}"),
        (b"'U {{ question }}'", b"' '", "line 9: user: "),
        (b"id: x", b"id: x@1", "line 2: id: .* got 'x@1'"),
        (b"id: x", b"name: x", "line 2: id: is missing"),
        (b"'3'", b"3", "line 3: version: must be a text"),
        (b"'3'", b"'3'\nversion: '4'", "line 4: version: is there twice"),
        (b"Line one.", b"{{ question.__class__.__mro__ }}", "line 5: system: cannot be rendered: .*unsafe"),
        (b"Line one.", b"{{ 1 / 0 }}", "line 5: system: cannot be rendered: division by zero"),
        (b"answer: At six [1].", b"reply: At six.", r"line 1[34]: few_shot\.examples\[0\]\."),
        (b"      answer: At six [1].\n", b"", r"line 13: few_shot\.examples\[0\]\.answer: is missing"),
        (b"  id: pair\n", b"", r"line 10: few_shot\.id: is missing"),
        (b"user:", b"user: [", "line [0-9]+: is no YAML"),
    ],
)
def test_bad_template_fails_at_start(old: bytes, new: bytes, told: str) -> None:
    """A template that cannot work is refused by file, line and field, never at the first question."""
    assert old in GOOD
    with pytest.raises(InvalidRequest, match=f"^bad.yaml, ({told})"):
        parse_template(GOOD.replace(old, new), file="bad.yaml")


@pytest.mark.parametrize("source", [b"\x80", b"- a", b"", b"a: !!python/object:os.system {}"])
def test_what_is_no_prompt_at_all_is_told(source: bytes) -> None:
    """Files that hold something else are refused by name."""
    with pytest.raises(InvalidRequest, match=r"^bad\.yaml"):
        parse_template(source, file="bad.yaml")


def test_unknown_prompt_names_the_known() -> None:
    """Asking for a prompt that is not there says which are."""
    with pytest.raises(NotFound, match="grounded-answer, plain"):
        load_prompts(None).get("x")


def test_missing_folder_is_told(tmp_path: Path) -> None:
    """A folder of the settings that is not there is a fault."""
    with pytest.raises(InvalidRequest, match="is no folder"):
        load_prompts(tmp_path / "none")


def test_the_documented_example_works() -> None:
    """The prompt that the documentation shows is one that loads."""
    text = files("services.generator").joinpath("prompts", "README.md").read_text("utf-8")
    template = parse_template(text.split("```yaml\n")[1].split("```")[0].encode(), file="README.md")
    system = template.messages("When?", CONTEXT, ())[0].content
    assert "[1] Harbour (Hours > Summer)\nIt opens at six." in system
    assert template.ref.few_shot_set == "support-tone-1"


def test_a_canary_stands_where_the_prompt_wants_it() -> None:
    """The deployment's canary is a variable; the prompt's hash does not depend on it."""
    source = GOOD.replace(b"Line one", b"Line {{ canary }} one")
    template = parse_template(source, file="x.yaml", canary="qhzkv")
    assert "Line qhzkv one" in template.messages("q", CONTEXT, ())[0].content
    assert template.ref.hash == parse_template(source, file="x.yaml").ref.hash
