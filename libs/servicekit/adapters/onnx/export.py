"""Writes a BERT sentence encoder as an ONNX graph: token ids of one text in, one pooled vector out.

Needs no torch; called by `graph_cache.py` when no finished graph lies in the cache.

One text a call means no padding, so the graph has no attention mask, and the token-type row (always type 0)
is folded into the position table.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors import safe_open

from servicekit.adapters.onnx.model_files import ModelFiles

OPSET = 17
IR_VERSION = 9
INPUT = "input_ids"
OUTPUT = "vector"
STATES = "last_hidden_state"
_ENCODER = "encoder.layer.{}."


class _GraphWriter:
    """Collects nodes and weights; every method appends one operation and returns its output's name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._weights: dict[str, NDArray[np.float32]] = {}

    def load(self, weights: Path) -> None:
        with safe_open(weights, "np") as tensors:
            # A model saved with a head has its encoder under a name of its own.
            self._weights = {key.removeprefix("bert."): tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118  # no mapping

    def weight(self, key: str) -> NDArray[np.float32]:
        return self._weights[key]

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def op(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def linear(self, source: str, key: str, name: str, *, scale: float = 1.0) -> str:
        """`source @ W.T + b`, both times `scale`; the MatMul node is called `name`.matmul."""
        matrix = self.constant(f"{name}.weight", self.weight(f"{key}.weight").T * np.float32(scale))
        bias = self.constant(f"{name}.bias", self.weight(f"{key}.bias") * np.float32(scale))
        return self.op("Add", [self.op("MatMul", [source, matrix], f"{name}.matmul"), bias], name)

    def layer_norm(self, source: str, key: str, name: str, *, epsilon: float) -> str:
        gain = self.constant(f"{name}.gain", self.weight(f"{key}.weight"))
        bias = self.constant(f"{name}.bias", self.weight(f"{key}.bias"))
        return self.op("LayerNormalization", [source, gain, bias], name, axis=-1, epsilon=epsilon)


def ffn_output_node(layer: int) -> str:
    """The name of the MatMul that closes a layer's feed-forward block."""
    return f"layer{layer}.ffn_out.matmul"


def export_graph(files: ModelFiles, target: Path) -> None:
    """Write the fp32 graph: input `input_ids` int64 [1, n], output `vector` float32 [1, hidden].

    Where the files say that the graph does not pool, the output is `last_hidden_state` float32 [1, n, hidden].
    """
    graph = _GraphWriter()
    graph.load(files.weights)
    state = _embeddings(graph, files)
    for layer in range(files.layers):
        state = _attention(graph, files, state, layer)
        state = _feed_forward(graph, files, state, layer)
    if files.pooled:
        _pool(graph, files, state)
        output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [1, files.hidden])
    else:
        graph.op("Identity", [state], STATES)
        output = helper.make_tensor_value_info(STATES, TensorProto.FLOAT, [1, "tokens", files.hidden])
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            files.name,
            [helper.make_tensor_value_info(INPUT, TensorProto.INT64, [1, "tokens"])],
            [output],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="binnacle",
    )
    onnx.checker.check_model(model)
    onnx.save_model(model, str(target))


def _embeddings(graph: _GraphWriter, files: ModelFiles) -> str:
    words = graph.constant("words", graph.weight("embeddings.word_embeddings.weight"))
    positions = (
        graph.weight("embeddings.position_embeddings.weight")[: files.max_tokens]
        + graph.weight("embeddings.token_type_embeddings.weight")[0]
    )
    table = graph.constant("positions", positions[np.newaxis])
    shape = graph.op("Shape", [INPUT], "ids.shape", start=1, end=2)
    zero = graph.constant("zero", np.array([0], dtype=np.int64))
    one = graph.constant("one", np.array([1], dtype=np.int64))
    used = graph.op("Slice", [table, zero, shape, one], "positions.used")
    summed = graph.op("Add", [graph.op("Gather", [words, INPUT], "words.gather"), used], "embedded")
    return graph.layer_norm(summed, "embeddings.LayerNorm", "embedded.norm", epsilon=files.layer_norm_eps)


def _attention(graph: _GraphWriter, files: ModelFiles, state: str, layer: int) -> str:
    key = _ENCODER.format(layer) + "attention."
    name = f"layer{layer}.attention"
    width = files.hidden // files.heads
    split = graph.constant(f"{name}.split", np.array([1, -1, files.heads, width], dtype=np.int64))
    merge = graph.constant(f"{name}.merge", np.array([1, -1, files.hidden], dtype=np.int64))

    def heads(part: str, order: list[int], scale: float = 1.0) -> str:
        flat = graph.linear(state, f"{key}self.{part}", f"{name}.{part}", scale=scale)
        parts = graph.op("Reshape", [flat, split], f"{name}.{part}.split")
        return graph.op("Transpose", [parts], f"{name}.{part}.heads", perm=order)

    # softmax(Q K^T / sqrt(d)) V; the division is folded into the query projection
    query = heads("query", [0, 2, 1, 3], 1.0 / math.sqrt(width))
    keys = heads("key", [0, 2, 3, 1])
    values = heads("value", [0, 2, 1, 3])
    scores = graph.op("MatMul", [query, keys], f"{name}.scores")
    weights = graph.op("Softmax", [scores], f"{name}.weights", axis=-1)
    mixed = graph.op("MatMul", [weights, values], f"{name}.mixed")
    ordered = graph.op("Transpose", [mixed], f"{name}.ordered", perm=[0, 2, 1, 3])
    merged = graph.op("Reshape", [ordered, merge], f"{name}.merged")
    projected = graph.linear(merged, f"{key}output.dense", f"{name}.out")
    residual = graph.op("Add", [projected, state], f"{name}.residual")
    return graph.layer_norm(residual, f"{key}output.LayerNorm", f"{name}.norm", epsilon=files.layer_norm_eps)


def _feed_forward(graph: _GraphWriter, files: ModelFiles, state: str, layer: int) -> str:
    key = _ENCODER.format(layer)
    name = f"layer{layer}"
    inner = graph.linear(state, f"{key}intermediate.dense", f"{name}.ffn_in")
    active = _gelu(graph, inner, f"{name}.gelu")
    outer = graph.linear(active, f"{key}output.dense", f"{name}.ffn_out")
    residual = graph.op("Add", [outer, state], f"{name}.residual")
    return graph.layer_norm(residual, f"{key}output.LayerNorm", f"{name}.norm", epsilon=files.layer_norm_eps)


def _gelu(graph: _GraphWriter, source: str, name: str) -> str:
    # x (1 + erf(x / sqrt 2)) / 2 (Hendrycks and Gimpel 2016), in the operators that the runtime fuses
    root2, one, half = (
        graph.constant(f"{name}.{label}", np.array(value, dtype=np.float32))
        for label, value in (("root2", math.sqrt(2)), ("one", 1.0), ("half", 0.5))
    )
    erf = graph.op("Erf", [graph.op("Div", [source, root2], f"{name}.scaled")], f"{name}.erf")
    doubled = graph.op("Mul", [source, graph.op("Add", [erf, one], f"{name}.shifted")], f"{name}.doubled")
    return graph.op("Mul", [doubled, half], name)


def _pool(graph: _GraphWriter, files: ModelFiles, state: str) -> None:
    mean = graph.op(
        "ReduceMean", [state], "pooled" if files.normalize else OUTPUT, axes=[1], keepdims=0
    )  # the mean over all tokens, the special ones included
    if files.normalize:
        norm = graph.op("ReduceL2", [mean], "pooled.norm", axes=[1], keepdims=1)
        floor = graph.constant("pooled.floor", np.array(1e-12, dtype=np.float32))
        graph.op("Div", [mean, graph.op("Max", [norm, floor], "pooled.safe_norm")], OUTPUT)
