"""Quantises the fp32 graph to int8 so that a query takes a few milliseconds on one core.

Called by `graph_cache.py` after the export.

Setting: signed weights per output channel, the word table too, and the matrix that closes the feed-forward
block of the first three layers left in fp32: their activations have outliers that one scale per tensor cannot
hold. Without that exclusion the worst cosine over short, odd texts falls below 0.98.
"""

import logging
from pathlib import Path

from servicekit.adapters.onnx.export import ffn_output_node

FP32_LAYERS = (0, 1, 2)


def quantize_graph(source: Path, target: Path) -> None:
    """Write the dynamically quantised twin of `source` to `target`."""
    # Imported here: only building needs it, and it takes a second.
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415  # see above

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises, on the root logger, a pre-processing that changes nothing here
    try:
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gather"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[ffn_output_node(layer) for layer in FP32_LAYERS],
        )
    finally:
        root.setLevel(level)
