"""Writes a request as TGI's routes take it: its names, its bounds. Pure; called by `engine.py`."""

from typing import Any

from servicekit.adapters.engine_schema import read_schema, unsupported
from servicekit.domain.prompt import EngineRequest

_DEFAULT_OUTPUT_TOKENS = 512
# The chat route takes any other name for that of an adapter.
_NO_ADAPTER = "tgi"


def generate_body(prompt: str, request: EngineRequest) -> dict[str, Any]:
    """The body of `/generate_stream`.

    Greedy is the absence of every sampling setting: TGI refuses a temperature of 0, and samples as soon as
    `top_p` or `top_k` is there. A `top_p` of 1 is likewise said by leaving it out.

    Raises:
        InvalidRequest: a setting that TGI has no way to honour.
    """
    sampling = request.sampling
    _check(request)
    greedy = not sampling.temperature
    parameters = {
        "max_new_tokens": sampling.max_output_tokens or _DEFAULT_OUTPUT_TOKENS,
        "do_sample": not greedy,
        "temperature": None if greedy else sampling.temperature,
        "top_p": None if greedy or sampling.top_p == 1 else sampling.top_p,
        "top_k": None if greedy else sampling.top_k,
        "frequency_penalty": sampling.frequency_penalty,
        "stop": list(sampling.stop) or None,
        "seed": sampling.seed,
        "adapter_id": request.adapter or None,
        "grammar": _grammar(request),
        "return_full_text": False,
        "details": True,
    }
    return {"inputs": prompt, "parameters": _given(parameters)}


def chat_body(request: EngineRequest) -> dict[str, Any]:
    """The body of `/v1/chat/completions`, where a temperature of 0 is greedy and none samples.

    Raises:
        InvalidRequest: a setting that this route has no way to honour.
    """
    sampling = request.sampling
    _check(request)
    if sampling.top_k is not None and sampling.temperature:
        raise unsupported("sampling.top_k", "top_k on its chat route")
    body = {
        "model": request.adapter or _NO_ADAPTER,
        "messages": [{"role": message.role.value, "content": message.content} for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": sampling.max_output_tokens or _DEFAULT_OUTPUT_TOKENS,
        "temperature": sampling.temperature or 0,
        "top_p": sampling.top_p if sampling.temperature and sampling.top_p != 1 else None,
        "frequency_penalty": sampling.frequency_penalty,
        "stop": list(sampling.stop) or None,
        "seed": sampling.seed,
        "logprobs": request.want_logprobs or None,
        "response_format": _grammar(request),
    }
    return _given(body)


def _check(request: EngineRequest) -> None:
    if request.sampling.presence_penalty:
        raise unsupported("sampling.presence_penalty", "presence penalty")


def _grammar(request: EngineRequest) -> dict[str, Any] | None:
    return {"type": "json", "value": read_schema(request.output_schema)} if request.output_schema else None


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}
