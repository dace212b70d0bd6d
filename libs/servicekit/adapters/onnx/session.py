"""Runs the graph for one text: tokenise, cut, encode.

Used by the pool's threads and by the check after a build.

One text a run: no padding, and a vector that never depends on what else is embedded, as dynamic
quantisation would otherwise make it. Parallelism comes from several runs at once, not from threads in one.
"""

from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from servicekit.adapters.onnx.model_files import ModelFiles
from servicekit.adapters.tokenizer_file import encodable, load_definition


class Encoder(Protocol):
    """One text in, one vector out; called from several threads."""

    def encode(self, text: str, *, prefix: str = "") -> NDArray[np.float32]:
        """The vector of a text behind its prompt."""
        ...


class EncoderSession:
    """One loaded graph with its cutting tokenizer; `encode` may run in several threads at once."""

    def __init__(self, graph: Path, files: ModelFiles) -> None:
        self._session = single_thread_session(graph)
        self._tokenizer = load_definition(files.tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(files.max_tokens)

    def encode(self, text: str, *, prefix: str = "") -> NDArray[np.float32]:
        """The text's vector, float32 of the model's dimension."""
        ids = np.array([self._tokenizer.encode(encodable(prefix + text)).ids], dtype=np.int64)
        (vectors,) = self._session.run(["vector"], {"input_ids": ids})
        vector: NDArray[np.float32] = vectors[0]
        return vector


def single_thread_session(graph: Path) -> ort.InferenceSession:
    """A graph on the CPU, each run on the thread that calls it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
