"""What a folder in the sentence-transformers format declares: graph or weights, pooling, prompts, longest text.

Read at start by `folder.py` for `onnx:///folder`. What cannot be followed is refused by name, never guessed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from servicekit.adapters.remote_embedding import Prefixes
from servicekit.errors import NotReady

GRAPHS = ("onnx/model.onnx", "model.onnx")
QUANTISED = ("onnx/model_quantized.onnx", "onnx/model_int8.onnx", "model_quantized.onnx", "model_int8.onnx")
_MODULES = ("Transformer", "Pooling", "Normalize")
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")
# Relations that unit vectors keep.
_SIMILARITIES = (None, "cosine")
# Their first position is the padding's index plus one.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")


class Pooling(StrEnum):
    """How token vectors become one, in the order in which several are joined."""

    CLS = "cls"
    MAX = "max"
    MEAN = "mean"
    MEAN_SQRT_LEN = "mean_sqrt_len"
    WEIGHTED_MEAN = "weightedmean"
    LAST_TOKEN = "lasttoken"  # noqa: S105  # no secret


@dataclass(frozen=True, slots=True)
class SentenceModel:
    """One model folder. `base` holds the transformer's files, most often the folder itself.

    `pool_prompt` is whether the tokens of a prompt are pooled too; `lower` whether texts are lowered first.
    """

    name: str
    base: Path
    max_tokens: int
    poolings: tuple[Pooling, ...]
    pool_prompt: bool
    token_dimension: int
    normalize: bool
    lower: bool
    prefixes: Prefixes

    @property
    def tokenizer(self) -> Path:
        """The tokenizer definition of the `tokenizers` library."""
        return self.base / "tokenizer.json"

    @property
    def weights(self) -> Path:
        """The safetensors file, which need not be there."""
        return self.base / "model.safetensors"


def read_sentence_model(folder: Path, *, name: str = "") -> SentenceModel:
    """Read the folder's configuration files.

    Raises:
        NotReady: a file is missing or broken, or declares what is not supported; names it.
    """
    modules = _modules(folder)
    base = folder / str(modules["Transformer"])
    pooling = _read_json(folder / str(modules["Pooling"]) / "config.json")
    config = _read_json(folder / "config_sentence_transformers.json", default={})
    limits = _read_json(next(iter(sorted(base.glob("sentence_*_config.json"))), base / "none"), default={})
    normalize = "Normalize" in modules
    similarity = config.get("similarity_fn_name")
    if similarity not in _SIMILARITIES and not (similarity == "dot" and normalize):
        raise _unsupported(folder, f"vectors to be compared by {similarity!r}: they are compared by cosine here")
    if not (base / "tokenizer.json").is_file():
        raise _unsupported(folder, "no tokenizer.json: save the model's fast tokenizer beside it")
    return SentenceModel(
        name=name or folder.resolve().name,
        base=base,
        max_tokens=_max_tokens(base, limits),
        poolings=_poolings(folder, pooling),
        pool_prompt=bool(pooling.get("include_prompt", True)),
        token_dimension=int(pooling.get("word_embedding_dimension") or pooling.get("embedding_dimension") or 0),
        normalize=normalize,
        lower=bool(limits.get("do_lower_case", False)),
        prefixes=_prefixes(config),
    )


def _modules(folder: Path) -> Mapping[str, str]:
    """Paths of the modules by the last part of their type."""
    listed = _read_json(folder / "modules.json")
    modules: dict[str, str] = {}
    for module in listed:
        kind = str(module["type"]).rpartition(".")[2]
        if kind not in _MODULES or kind in modules:
            raise _unsupported(folder, f"the module {kind!r}: {', '.join(_MODULES)} are known, each once")
        modules[kind] = str(module.get("path", ""))
    if tuple(modules)[:2] != _MODULES[:2]:
        raise _unsupported(folder, f"the modules {', '.join(modules) or 'none'}: Transformer and Pooling come first")
    return modules


def _poolings(folder: Path, config: Mapping[str, Any]) -> tuple[Pooling, ...]:
    """The modes that are on; told by flags, or by name as newer versions do."""
    named = config.get("pooling_mode")
    names = [named] if isinstance(named, str) else list(named or ())
    for flag, on in config.items():
        if flag.startswith("pooling_mode_") and on is True:
            names.append(flag.removeprefix("pooling_mode_").removesuffix("_token").removesuffix("_tokens"))
    unknown = sorted(set(names) - set(Pooling))
    if unknown or not names:
        raise _unsupported(folder, f"the pooling {', '.join(unknown) or 'none'}: {', '.join(Pooling)} are known")
    return tuple(mode for mode in Pooling if mode in names)


def _prefixes(config: Mapping[str, Any]) -> Prefixes:
    """The prompts for queries and for documents; where one is not named, the default one."""
    prompts = config.get("prompts") or {}
    default = prompts.get(config.get("default_prompt_name") or "", "")
    document = next((prompts[name] for name in _DOCUMENT_PROMPTS if prompts.get(name)), default)
    return Prefixes(str(prompts.get("query") or default), str(document))


def _max_tokens(base: Path, limits: Mapping[str, Any]) -> int:
    """The declared length, within what the transformer has positions for."""
    config = _read_json(base / "config.json", default={})
    positions = config.get("max_position_embeddings")
    if positions is not None and config.get("model_type") in _OFFSET_POSITIONS:
        positions = int(positions) - 2
    declared = [int(value) for value in (limits.get("max_seq_length"), positions) if value]
    if not declared:
        raise _unsupported(base, "no max_seq_length and no max_position_embeddings: the longest text is unknown")
    return min(declared)


def _read_json(path: Path, *, default: Any = None) -> Any:
    if default is not None and not path.is_file():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise NotReady(
            f"{str(path)!r} cannot be read ({exc}): onnx:///folder needs a model as sentence-transformers saves it",
            reason="MODEL_UNREADABLE",
        ) from exc


def _unsupported(folder: Path, what: str) -> NotReady:
    return NotReady(f"embedding model {str(folder)!r} declares {what}", reason="UNSUPPORTED_MODEL")
