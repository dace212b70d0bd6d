"""Reads the options of an engine's URL, and writes a request under OpenAI's names. Pure; called by `engine.py`."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from servicekit.adapters.engine_schema import read_schema, unsupported
from servicekit.domain.prompt import EngineRequest
from servicekit.errors import InvalidRequest

OPTIONS = frozenset({"model", "window", "limit_field", "schema", "usage", "tokenizer", "template"})
_LIMIT_FIELDS = ("max_tokens", "max_completion_tokens")
_USAGES = ("end", "continuous", "none")


class SchemaForm(StrEnum):
    """How a server takes an output schema.

    `json_schema` is OpenAI's; `json_object` has the schema beside it, as llama.cpp and others read it; `guided_json`
    is vLLM's own before 0.12, `tgi` that of TGI's chat route.
    """

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    GUIDED_JSON = "guided_json"
    TGI = "tgi"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the URL says; `window` is 0 where it says nothing of it, `model` empty for the first of the server's."""

    model: str
    window: int
    limit_field: str
    schema: SchemaForm
    usage: str

    def arguments(self, request: EngineRequest, *, model: str) -> dict[str, Any]:
        """The arguments of `chat.completions.create`; what is not set is not sent.

        Raises:
            InvalidRequest: the schema is none, or the server takes none.
        """
        sampling = request.sampling
        schema = self._schema(request.output_schema) if request.output_schema else {}
        extra = {"top_k": sampling.top_k, **schema.get("extra_body", {})}  # not OpenAI's, but every open server's
        given = {
            "model": request.adapter or model,
            "messages": [{"role": message.role.value, "content": message.content} for message in request.messages],
            "stream": True,
            "stream_options": self._stream_options(),
            self.limit_field: sampling.max_output_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop": list(sampling.stop) or None,
            "seed": sampling.seed,
            "frequency_penalty": sampling.frequency_penalty,
            "presence_penalty": sampling.presence_penalty,
            "logprobs": request.want_logprobs or None,
            # Left out, llama.cpp's server tells twenty and its Python package none; at 0 the server tells none.
            "top_logprobs": 1 if request.want_logprobs else None,
            "response_format": schema.get("response_format"),
            "extra_body": {name: value for name, value in extra.items() if value is not None} or None,
        }
        return {name: value for name, value in given.items() if value is not None}

    def _stream_options(self) -> dict[str, bool] | None:
        match self.usage:
            case "none":
                return None
            case "continuous":
                return {"include_usage": True, "continuous_usage_stats": True}
            case _:
                return {"include_usage": True}

    def _schema(self, text: str) -> dict[str, Any]:
        schema = read_schema(text)
        match self.schema:
            case SchemaForm.JSON_SCHEMA:
                named = {"name": "answer", "schema": schema, "strict": True}
                return {"response_format": {"type": "json_schema", "json_schema": named}}
            case SchemaForm.JSON_OBJECT:
                return {"response_format": {"type": "json_object", "schema": schema}}
            case SchemaForm.GUIDED_JSON:
                return {"extra_body": {"guided_json": schema}}
            case SchemaForm.TGI:
                return {"response_format": {"type": "json", "value": schema}}
            case SchemaForm.NONE:
                raise unsupported("output_schema", "output schemas")


def read_settings(options: Mapping[str, str]) -> Settings:
    """The URL's options.

    Raises:
        InvalidRequest: one is out of its bounds.
    """
    window = options.get("window", "0")
    if not window.isascii() or not window.isdigit() or ("window" in options and int(window) < 1):
        raise InvalidRequest(f"window must be a number of tokens, got {window!r}", field="engine_url")
    if options.get("template") and not options.get("tokenizer"):
        raise InvalidRequest("template counts with a tokenizer file: give tokenizer= too", field="engine_url")
    return Settings(
        model=options.get("model", ""),
        window=int(window),
        limit_field=_one_of(options, "limit_field", _LIMIT_FIELDS),
        schema=SchemaForm(_one_of(options, "schema", tuple(SchemaForm))),
        usage=_one_of(options, "usage", _USAGES),
    )


def _one_of(options: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    given = options.get(name, known[0])
    if given not in known:
        raise InvalidRequest(f"{name} must be {' or '.join(known)}, got {given!r}", field="engine_url")
    return given
