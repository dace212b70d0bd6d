"""A model's own chat template: the Jinja text of its `tokenizer_config.json`, rendered in Jinja's sandbox.

Used by the adapters of remote engines, to write what an engine reads and to count it. The environment is that of
transformers' `apply_chat_template`: trimmed blocks, loop controls, `raise_exception`, `strftime_now`, plain `tojson`.
"""

import json
import re
import traceback
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from servicekit.domain.prompt import Message
from servicekit.errors import InvalidRequest, NotReady

UNREADABLE = "CHAT_TEMPLATE_UNREADABLE"
_JINJA_FILE = "chat_template.jinja"
_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")
_LEAST_DEFUSED_CHARS = 3
_TRIAL = [{"role": "user", "content": "a"}]


class ChatTemplate:
    """Renders conversations; made by `load_chat_template`."""

    def __init__(self, name: str, template: jinja2.Template, tokens: Mapping[str, str], special: Sequence[str]) -> None:
        self._name = name
        self._template = template
        self._tokens = tokens
        texts = sorted({text for text in special if len(text) >= _LEAST_DEFUSED_CHARS}, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, texts))) if texts else None

    @property
    def bos(self) -> str:
        """The token that opens a prompt; empty for none."""
        return self._tokens.get("bos_token", "")

    def render(self, messages: Sequence[Message]) -> str:
        """The messages, and the opening of the assistant's answer.

        No message can open or close a turn: special tokens inside one are broken by a blank.

        Raises:
            InvalidRequest: the template refuses these messages.
        """
        told = [{"role": message.role.value, "content": self._defused(message.content)} for message in messages]
        try:
            return self._render(told)
        except Exception as error:  # a template can raise anything
            raise InvalidRequest(
                f"the model's chat template refuses these messages: {error}",
                field="messages",
                reason="CHAT_TEMPLATE_REFUSED",
            ) from error

    def check(self) -> None:
        """Render one short message.

        Raises:
            NotReady: that fails; the message names the template and the line.
        """
        try:
            self._render(_TRIAL)
        except Exception as error:  # a template can raise anything
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename == "<template>"]
            raise _broken(self._name, lines[-1] if lines else None, error) from error

    def _render(self, messages: Sequence[Mapping[str, str]]) -> str:
        return self._template.render(messages=messages, add_generation_prompt=True, **self._tokens)

    def _defused(self, content: str) -> str:
        if self._special is None:
            return content
        return self._special.sub(lambda match: f"{match.group()[0]} {match.group()[1:]}", content)


def load_chat_template(path: Path) -> ChatTemplate:
    """Read a `tokenizer_config.json`, its template inside or in the `chat_template.jinja` beside it. Blocking.

    Raises:
        NotReady: no such file, no template in it, or a bad one; names file and line.
    """
    path = path.expanduser()
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        source, name = _source(config, path)
        tokens = {key: text for key in _NAMED_TOKENS if (text := _token_text(config.get(key)))}
        added = config.get("added_tokens_decoder") or {}
        special = [_token_text(one) for one in added.values() if one.get("special")]
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise NotReady(
            f"the chat template of {str(path)!r} cannot be read ({error}): name a model's tokenizer_config.json",
            reason=UNREADABLE,
        ) from error
    try:
        compiled = _environment().from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise _broken(name, error.lineno, error) from error
    template = ChatTemplate(name, compiled, tokens, [*tokens.values(), *special])
    template.check()
    return template


def _source(config: Mapping[str, Any], path: Path) -> tuple[str, str]:
    """The template's text, and what to call it; one of several is named `default`."""
    given = config.get("chat_template")
    if isinstance(given, list):
        given = next(one["template"] for one in [*given, {"name": "default"}] if one["name"] == "default")
    if isinstance(given, str):
        return given, str(path)
    beside = path.with_name(_JINJA_FILE)
    return beside.read_text(encoding="utf-8"), str(beside)


def _token_text(token: object) -> str:
    """A token is its text, or an object that holds it."""
    return str(token.get("content") or "") if isinstance(token, Mapping) else str(token or "")


def _environment() -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[loopcontrols, _Generation],
        autoescape=False,  # a prompt is no HTML
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


class _Generation(Extension):
    """`{% generation %}` marks for training what the assistant says; here it is its body."""

    tags = {"generation"}  # noqa: RUF012  # as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(value: object, indent: int | None = None, **options: Any) -> str:
    """Without Jinja's escapes for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent, **options)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


def _broken(name: str, line: int | None, error: Exception) -> NotReady:
    where = name if line is None else f"{name}, line {line}"
    return NotReady(f"the chat template of {where} is bad: {error}", reason="CHAT_TEMPLATE_BROKEN")
