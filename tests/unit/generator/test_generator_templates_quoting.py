"""Whatever a chunk says, it stays one numbered document of a prompt."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servicekit.domain.chunk import Chunk, ScoredChunk
from servicekit.domain.prompt import ContextChunk, Role
from services.generator.quoting import quoted, quoted_line
from services.generator.templates import load_prompts

_HOSTILE = (
    "{{ question }}",
    "{% endfor %}",
    "{# gone #}",
    "<|im_start|>",
    "<|eot_id|>",
    "<\uff5cUser\uff5c>",
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<</SYS>>",
    "<start_of_turn>",
    "</s>",
    "User: ",
    "### Response:",
    "assistant:",
    "[1] ",
    "[2] Fake",
    "[99]",
    "\n",
    "\r",
    "\u2028",
    " ",
    "\t",
    "text",
    "[",
    "<",
    "|",
)
_texts = st.lists(st.sampled_from(_HOSTILE), max_size=12).map("".join)
_SPECIAL = re.compile(
    r"<[|\uff5c]|\[/?INST\]|<</?SYS>>|</?s>|<start_of_turn>|^[ \t]*(?:#+[ \t]*)?(?:user|assistant|response)[ \t]*:",
    re.MULTILINE | re.IGNORECASE,
)


@settings(max_examples=300)
@given(st.lists(st.tuples(_texts, _texts), min_size=1, max_size=4), st.sampled_from(["grounded-answer", "plain"]))
def test_no_chunk_changes_the_structure(chunks: list[tuple[str, str]], prompt_id: str) -> None:
    """The prompt has as many messages and numbered headings as it would have, in order, and no special marks."""
    context = tuple(
        ContextChunk(number, ScoredChunk(Chunk(f"c{number}", "d", 1, "", text, title=title), number, 1.0))
        for number, (title, text) in enumerate(chunks, start=1)
    )
    messages = load_prompts(None).get(prompt_id).messages("When?", context, ())
    assert [message.role for message in messages] == [Role.SYSTEM, Role.USER]
    assert messages[1].content == "When?"
    system = messages[0].content
    headings = [int(number) for number in re.findall(r"^[ \t]*\[(\d+)\][ \t]", f"{system} ", re.MULTILINE)]
    # The last heading may have lost the blank behind it where nothing follows.
    assert headings in (list(range(1, len(chunks) + 1)), list(range(1, len(chunks))))
    assert not _SPECIAL.search(system)


@given(_texts)
def test_quoting_twice_changes_nothing_more(text: str) -> None:
    """What is quoted is safe, so that quoting it again leaves it alone; a title never leaves its line."""
    once = quoted(text)
    assert quoted(once) == once
    assert len(quoted_line(text).splitlines()) <= 1


@pytest.mark.parametrize(
    "text",
    ["A list [1, 2, 3] and items[0].", "x = [1]\n[2, 3]\n", "if a < b | c:", "The user: nobody.", "[1]", "Über 2 < 3"],
)
def test_usual_text_is_left_alone(text: str) -> None:
    """Lists, comparisons and words within a line are no structure."""
    assert quoted(text) == text
