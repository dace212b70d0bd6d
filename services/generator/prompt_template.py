"""A prompt: texts with variables, worked examples, and how they become messages.

Made by `prompt_files.py`, held by `templates.py`, rendered by `packing.py`. Jinja2 in its sandbox.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from servicekit.domain.prompt import ContextChunk, Message, PromptRef, Role
from services.generator.quoting import quoted, quoted_line

VARIABLES = ("canary", "chunks", "question")
CHUNK_VARIABLES = ("number", "title", "heading", "source", "text")


@dataclass(frozen=True, slots=True)
class Example:
    """A question and how it should be answered."""

    question: str
    answer: str


@dataclass(frozen=True)
class PromptTemplate:
    """One version of one prompt."""

    ref: PromptRef
    system: jinja2.Template
    user: jinja2.Template
    examples: tuple[Example, ...] = ()
    canary: str = ""

    def messages(
        self, question: str, chunks: Sequence[ContextChunk], history: Sequence[Message]
    ) -> tuple[Message, ...]:
        """Instructions with the chunks, the examples, the history, the question; an empty system message is left out.

        What a question or a chunk says is never read as a template, and a chunk cannot pass for what stands around it.
        """
        variables = {"canary": self.canary, "question": question, "chunks": [_variables(chunk) for chunk in chunks]}
        system = self.system.render(variables).strip()
        opening = (Message(Role.SYSTEM, system),) if system else ()
        shown = (
            message
            for example in self.examples
            for message in (Message(Role.USER, example.question), Message(Role.ASSISTANT, example.answer))
        )
        return (*opening, *shown, *history, Message(Role.USER, self.user.render(variables)))


def _variables(item: ContextChunk) -> Mapping[str, Any]:
    chunk = item.scored.chunk
    return {
        "number": item.number,
        "title": quoted_line(chunk.title),
        "heading": quoted_line(" > ".join(chunk.heading_path)),
        "source": quoted_line(chunk.source_uri),
        "text": quoted(chunk.text),
    }
