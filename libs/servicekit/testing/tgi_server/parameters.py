"""The parameters of a generation, their types and TGI's bounds, in TGI's order and words (router of version 3).

Pure; called by `generation.py` on the `parameters` of TGI's own routes and what the OpenAI routes make of theirs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from servicekit.testing.tgi_server.dials import Dials
from servicekit.testing.tgi_server.refusals import invalid, unreadable

_MAX_PENALTY = 2.0
_NUMBERS = ("temperature", "repetition_penalty", "frequency_penalty", "top_p", "typical_p")
_UNSIGNED = ("best_of", "max_new_tokens", "truncate", "seed", "top_n_tokens")
_FLAGS = ("do_sample", "return_full_text", "watermark", "details", "decoder_input_details")
_GRAMMARS = ("json", "json_object", "json_schema", "regex")


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the answer has to match: a JSON schema, or a regular expression."""

    schema: Any = None
    regex: str | None = None


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters within their bounds; `sampling` is off where the choice of each token is greedy."""

    best_of: int = 1
    sampling: bool = False
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    truncate: int | None = None
    seed: int | None = None
    details: bool = False
    decoder_input_details: bool = False
    return_full_text: bool = False
    top_n_tokens: int = 0
    grammar: Grammar | None = None
    adapter: str = ""


def read_parameters(raw: object, dials: Dials) -> Parameters:
    """The parameters, checked.

    Raises:
        Refusal: 422, plain text for a wrong type, JSON for a value out of bounds.
    """
    if raw is None:
        raw = {}
    if not isinstance(raw, Mapping):
        raise unreadable("parameters: invalid type, expected struct GenerateParameters")
    _check_types(raw)
    given = {name: value for name, value in raw.items() if value is not None}
    sampling = bool(given.get("do_sample")) or any(
        name in given for name in ("temperature", "top_k", "top_p", "typical_p")
    )
    _check_best_of(given, dials, sampling=sampling)
    _check_bounds(given)
    _check_limits(given, dials)
    return Parameters(
        best_of=given.get("best_of", 1),
        sampling=sampling,
        max_new_tokens=given.get("max_new_tokens"),
        stop=tuple(given.get("stop", ())),
        truncate=given.get("truncate"),
        seed=given.get("seed"),
        details=given.get("details", False),
        decoder_input_details=given.get("decoder_input_details", False),
        return_full_text=given.get("return_full_text", False),
        top_n_tokens=given.get("top_n_tokens", 0),
        grammar=_grammar(given.get("grammar"), dials),
        adapter=_adapter(given.get("adapter_id", ""), dials),
    )


def _check_types(raw: Mapping[str, Any]) -> None:
    for name, value in raw.items():
        expected = ""
        if value is None:
            continue
        if name in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int | float)):
            expected = "f32"
        elif name in _UNSIGNED and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            expected = "u64" if name == "seed" else "u32"
        elif name == "top_k" and (isinstance(value, bool) or not isinstance(value, int)):
            expected = "i32"
        elif name in _FLAGS and not isinstance(value, bool):
            expected = "a boolean"
        elif name == "adapter_id" and not isinstance(value, str):
            expected = "a string"
        elif name == "stop" and not (isinstance(value, list) and all(isinstance(mark, str) for mark in value)):
            expected = "a sequence of strings"
        if expected:
            raise unreadable(f"parameters.{name}: invalid type or value: `{value}`, expected {expected}")


def _check_best_of(given: Mapping[str, Any], dials: Dials, *, sampling: bool) -> None:
    best_of = given.get("best_of", 1)
    if best_of == 1:
        return
    if dials.max_best_of == 1:
        raise invalid("`best_of` != 1 is not allowed for this endpoint")
    if not 0 < best_of <= dials.max_best_of:
        raise invalid(f"`best_of` must be > 0 and <= {dials.max_best_of}. Given: {best_of}")
    if not sampling:
        raise invalid("you must use sampling when `best_of` is > 1")
    if "seed" in given:
        raise invalid("`seed` must not be set when `best_of` > 1")


def _check_bounds(given: Mapping[str, Any]) -> None:
    if given.get("temperature", 1) <= 0:
        raise invalid("`temperature` must be strictly positive")
    if given.get("repetition_penalty", 1) <= 0:
        raise invalid("`repetition_penalty` must be strictly positive")
    if abs(given.get("frequency_penalty", 0)) > _MAX_PENALTY:
        raise invalid("`frequency_penalty` must be >= -2.0 and <= 2.0")
    for name in ("top_p", "typical_p"):
        if name in given and not 0 < given[name] < 1:
            raise invalid(f"`{name}` must be > 0.0 and < 1.0")
    if given.get("top_k", 1) <= 0:
        raise invalid("`top_k` must be strictly positive")
    if given.get("max_new_tokens") == 0:
        raise invalid("`max_new_tokens` must be strictly positive")


def _check_limits(given: Mapping[str, Any], dials: Dials) -> None:
    stops, top_n, truncate = len(given.get("stop", ())), given.get("top_n_tokens", 0), given.get("truncate", 1)
    if stops > dials.max_stop_sequences:
        raise invalid(f"`stop` supports up to {dials.max_stop_sequences} stop sequences. Given: {stops}")
    if top_n > dials.max_top_n_tokens:
        raise invalid(f"`top_n_tokens` must be >= 0 and <= {dials.max_top_n_tokens}. Given: {top_n}")
    if not 0 < truncate <= dials.max_input_tokens:
        raise invalid(f"`truncate` must be strictly positive and less than {dials.max_input_tokens}. Given: {truncate}")


def _grammar(raw: Any, dials: Dials) -> Grammar | None:
    """The grammar of `{"type", "value"}`; its schema is checked when an instance is made of it."""
    if raw is None:
        return None
    if not isinstance(raw, Mapping) or raw.get("type") not in _GRAMMARS or "value" not in raw:
        raise unreadable("parameters.grammar: expected an object with `type` (json, json_schema or regex) and `value`")
    if not dials.grammar_supported:
        raise invalid("grammar is not supported")
    kind, value = raw["type"], raw["value"]
    if kind == "regex":
        if not isinstance(value, str):
            raise unreadable("parameters.grammar.value: expected a string")
        return Grammar(regex=value)
    if kind == "json_schema":
        if not isinstance(value, Mapping) or "schema" not in value:
            raise unreadable("parameters.grammar.value: missing field `schema`")
        value = value["schema"]
    return Grammar(schema=value)


def _adapter(name: str, dials: Dials) -> str:
    """The adapter to use: empty, the base model, for one that is not loaded, as TGI does."""
    loaded = [adapter.strip() for adapter in dials.adapters.split(",") if adapter.strip()]
    if not name or name in loaded:
        return name
    if dials.refuse_unknown_adapter:
        raise invalid(f"adapter_id `{name}` is not loaded; loaded adapters: {', '.join(loaded) or 'none'}")
    return ""
