"""Reads the bodies of the OpenAI-compatible routes into TGI's parameters, as TGI's router does.

Pure; called by `routes.py` and, for `/chat_tokenize`, by `server.py`.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from servicekit.testing.tgi_server.dials import Dials
from servicekit.testing.tgi_server.refusals import Refusal, invalid, no_tools, unreadable

_DEFAULT_COMPLETION_TOKENS = 100
_LIKE_NONE = ("text",)
_ANY_OBJECT = {"type": "object", "properties": {"answer": {"type": "string"}}}


def chat_prompt(body: Mapping[str, Any]) -> str:
    """The messages joined, in place of a chat template; parts of a content are joined too."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise unreadable("messages: expected a sequence of messages")
    if not messages:
        raise invalid("`inputs` cannot be empty")
    return "\n".join(f"{message.get('role')}: {_content(message.get('content'))}" for message in messages)


def chat_parameters(body: Mapping[str, Any], dials: Dials) -> dict[str, Any]:
    """A chat's settings by their names on `/generate`; a temperature of 0 turns sampling off, none leaves it on."""
    if body.get("tools"):
        if body.get("response_format"):
            raise no_tools("Grammar and tools are mutually exclusive")
        raise no_tools("this server calls no tools")
    top = body.get("top_logprobs") if body.get("logprobs") else None
    given = {
        **_shared(body, dials),
        "max_new_tokens": body.get("max_completion_tokens", body.get("max_tokens")),
        "frequency_penalty": body.get("frequency_penalty"),
        "repetition_penalty": _repetition_penalty(body),
        "top_n_tokens": top,
        "grammar": _grammar(body.get("response_format")),
        "details": True,
    }
    return {name: value for name, value in given.items() if value is not None}


def completion_parameters(body: Mapping[str, Any], dials: Dials) -> dict[str, Any]:
    """A completion's settings by their names on `/generate`."""
    if body.get("suffix") is not None:
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "suffix not supported",
            "Suffix is not supported and can be achieved by preprocessing the prompt.",
        )
    given = {
        **_shared(body, dials),
        "max_new_tokens": _DEFAULT_COMPLETION_TOKENS if body.get("max_tokens") is None else body["max_tokens"],
        "frequency_penalty": body.get("frequency_penalty"),
        "repetition_penalty": body.get("repetition_penalty"),
        "details": True,
    }
    return {name: value for name, value in given.items() if value is not None}


def prompts(body: Mapping[str, Any], dials: Dials) -> list[str]:
    """The prompts of a completion: one, or a list."""
    given = body.get("prompt")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise unreadable("prompt: expected a string or a sequence of strings")
    if len(texts) > dials.max_client_batch_size:
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "batch size exceeded",
            f"Number of prompts exceeds the maximum allowed batch size of {dials.max_client_batch_size}",
        )
    return texts


def _shared(body: Mapping[str, Any], dials: Dials) -> dict[str, Any]:
    """What both routes read alike; `model` names an adapter unless it is `tgi` or the model itself."""
    stop = body.get("stop") or []
    temperature, model = body.get("temperature"), body.get("model")
    # A top_p of 1 is OpenAI's default, which its clients send; the bounds of /generate exclude it.
    return {
        "do_sample": temperature != 0,
        "temperature": temperature or None,
        "top_p": None if body.get("top_p") == 1 else body.get("top_p"),
        "stop": [stop] if isinstance(stop, str) else stop,
        "seed": body.get("seed"),
        "adapter_id": model if isinstance(model, str) and model not in {"", "tgi", dials.model} else None,
    }


def _repetition_penalty(body: Mapping[str, Any]) -> float | None:
    """TGI turns OpenAI's presence penalty (-2 to 2) into its own (above 0): penalty + 2."""
    penalty = body.get("presence_penalty")
    return penalty + 2.0 if isinstance(penalty, int | float) else None


def _grammar(response_format: Any) -> dict[str, Any] | None:
    """TGI's grammar of a response format, OpenAI's way of saying it (`json_schema` beside `type`) included."""
    if not isinstance(response_format, Mapping) or response_format.get("type") in _LIKE_NONE:
        return None
    if "json_schema" in response_format:
        return {"type": "json_schema", "value": response_format["json_schema"]}
    if response_format.get("type") == "json_object" and "value" not in response_format:
        return {"type": "json", "value": _ANY_OBJECT}
    return dict(response_format)


def _content(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return str(content)
