"""Opens any sentence-transformers model for `onnx:///folder`: its own graph, or one written from a BERT's weights.

Called by `embedder.py` at start. Named in events and pinned to indexes by a digest of all that decides a vector.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from servicekit.adapters.onnx.graph_cache import Precision, ensure_graph, graph_revision
from servicekit.adapters.onnx.model_files import ModelFiles, hash_file, read_bert
from servicekit.adapters.onnx.pooling import pool, to_unit
from servicekit.adapters.onnx.sentence_model import GRAPHS, QUANTISED, SentenceModel
from servicekit.adapters.onnx.session import single_thread_session
from servicekit.adapters.tokenizer_file import encodable, load_definition
from servicekit.errors import NotReady

_DIGEST_CHARS = 12
_STATES = ("token_embeddings", "last_hidden_state")
_POOLED = ("sentence_embedding", "vector")
_TYPES: Mapping[str, type[np.integer[Any]]] = MappingProxyType({"tensor(int64)": np.int64, "tensor(int32)": np.int32})
_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
# What is embedded for a text that a tokenizer without special tokens finds nothing in.
_NOTHING = "."


class SentenceSession:
    """One loaded graph with its tokenizer; `encode` may run in several threads at once."""

    def __init__(self, graph: Path, model: SentenceModel) -> None:
        self._model = model
        try:
            self._session = single_thread_session(graph)
        except Exception as exc:  # the library has errors of its own, one for each way a file can be wrong
            raise NotReady(f"the graph {str(graph)!r} cannot be loaded: {exc}", reason="MODEL_UNREADABLE") from exc
        self._inputs = _read_inputs(graph, self._session)
        self._output, self._pooled = _choose_output(graph, self._session)
        self._tokenizer = load_definition(model.tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(model.max_tokens)

    def encode(self, text: str, *, prefix: str = "") -> NDArray[np.float32]:
        """The text's unit vector behind its prompt."""
        encoding = self._tokenizer.encode(self._readable(prefix + text))
        if not encoding.ids:
            encoding = self._tokenizer.encode(_NOTHING)
        given = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
            "position_ids": list(range(len(encoding.ids))),
        }
        feed = {name: np.array([given[name]], dtype=kind) for name, kind in self._inputs.items()}
        (answer,) = self._session.run([self._output], feed)
        found = np.asarray(answer[0], dtype=np.float32)
        if not self._pooled:
            skip = 0 if self._model.pool_prompt or not prefix else self._prompt_tokens(prefix)
            found = pool(found, self._model.poolings, skip=skip)
        return to_unit(found)

    def _readable(self, text: str) -> str:
        return encodable(text.lower() if self._model.lower else text)

    def _prompt_tokens(self, prefix: str) -> int:
        """Tokens in front of the text, the opening special one with them, the closing one not."""
        encoding = self._tokenizer.encode(self._readable(prefix))
        closing = bool(encoding.special_tokens_mask) and encoding.special_tokens_mask[-1] == 1
        return len(encoding.ids) - closing


def load_folder(
    model: SentenceModel, *, file: str, precision: Precision | None, cache_dir: Path
) -> tuple[SentenceSession, str]:
    """The session, and the revision: a digest of weights, tokenizer and pooling, and the name of the variant.

    Raises:
        NotReady: there is no such graph, none that can be written, or it does not do what the folder declares.
    """
    graph = find_graph(model, file=file, precision=precision)
    if graph is None:
        files, chosen = _exportable(model), precision or Precision.FP32
        built = ensure_graph(files, chosen, cache_dir, make_encoder=lambda path: SentenceSession(path, model))
        session, made_of, variant = SentenceSession(built, model), graph_revision(files, chosen), chosen.value
    else:
        session, made_of, variant = SentenceSession(graph, model), _hash_graph(graph), graph.stem
    _check_dimension(session, model)
    return session, f"{_digest(model, made_of)}-{variant}"


def find_graph(model: SentenceModel, *, file: str, precision: Precision | None) -> Path | None:
    """The graph that is named, or the usual one of the precision; None where one must be written from weights."""
    ready = sorted(str(path.relative_to(model.base)) for path in model.base.rglob("*.onnx"))
    if file:
        if file not in ready:
            raise NotReady(
                f"embedder_url: file must be one of {', '.join(ready) or 'no graph there'}, got {file!r}",
                reason="NO_GRAPH",
            )
        return model.base / file
    wanted = QUANTISED if precision is Precision.INT8 else GRAPHS
    found = next((name for name in wanted if name in ready), None)
    if found is not None:
        return model.base / found
    if not model.weights.is_file():
        there = (
            f"has {', '.join(ready)}: name one with file=…" if ready else "has neither a graph nor model.safetensors"
        )
        raise NotReady(f"embedding model {str(model.base)!r} {there}", reason="NO_GRAPH")
    return None


def _exportable(model: SentenceModel) -> ModelFiles:
    """The weights as the exporter takes them, its graph to give the token vectors."""
    return replace(read_bert(model.name, model.base), pooled=False)


def _read_inputs(graph: Path, session: ort.InferenceSession) -> Mapping[str, type[np.integer[Any]]]:
    declared = {one.name: one.type for one in session.get_inputs()}
    for name, kind in declared.items():
        if name not in _INPUTS or kind not in _TYPES:
            raise NotReady(
                f"the graph {str(graph)!r} wants {name!r} ({kind}); known are {', '.join(_INPUTS)} as whole numbers",
                reason="UNSUPPORTED_MODEL",
            )
    return {name: _TYPES[kind] for name, kind in declared.items()}


def _choose_output(graph: Path, session: ort.InferenceSession) -> tuple[str, bool]:
    """Token vectors, to be pooled as the folder says; else what the graph has pooled."""
    declared = [one.name for one in session.get_outputs()]
    for names, pooled in ((_STATES, False), (_POOLED, True)):
        for name in names:
            if name in declared:
                return name, pooled
    raise NotReady(
        f"the graph {str(graph)!r} gives {', '.join(declared)}; known are {', '.join((*_STATES, *_POOLED))}",
        reason="UNSUPPORTED_MODEL",
    )


def _check_dimension(session: SentenceSession, model: SentenceModel) -> None:
    found, declared = len(session.encode("a")), model.token_dimension * len(model.poolings)
    if declared and found != declared:
        raise NotReady(
            f"embedding model {model.name} gives {found} values, and its pooling declares {declared}: "
            "are graph and configuration of one model?",
            reason="UNSUPPORTED_MODEL",
        )


def _hash_graph(graph: Path) -> str:
    """Of the graph and of the files that hold weights beside it."""
    parts = sorted(path for path in graph.parent.iterdir() if path.name.startswith(graph.name))
    return hashlib.sha256("".join(hash_file(path) for path in parts).encode()).hexdigest()


def _digest(model: SentenceModel, made_of: str) -> str:
    """Of everything that changes a vector."""
    decides = {
        "made_of": made_of,
        "tokenizer": hash_file(model.tokenizer),
        "poolings": model.poolings,
        "pool_prompt": model.pool_prompt,
        "lower": model.lower,
        "max_tokens": model.max_tokens,
        "query": model.prefixes.query,
        "document": model.prefixes.document,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:_DIGEST_CHARS]
