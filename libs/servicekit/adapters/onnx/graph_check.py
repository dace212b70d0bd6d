"""Compares a quantised graph with the one it was made from, before anyone relies on it.

Called by `graph_cache.py` at the end of a build.
"""

import numpy as np

from servicekit.adapters.onnx.session import Encoder
from servicekit.errors import NotReady

MIN_COSINE = 0.98
# Short, odd and mixed texts are where quantisation hurts first.
CHECK_TEXTS = (
    "",
    "a",
    "x = [i ** 2 for i in range(10)]",
    "Grüße aus Zürich: 5 € für 3 Bücher 📚",
    "注文はキャンセルできますか",
    "SELECT tenant, sum(cost) FROM usage GROUP BY tenant",
    "Which setting bounds how long a request may wait for the model server?",
    "The needle of a compass points to magnetic north, not to true north; they differ by the variation. " * 12,
)


def check_graph(candidate: Encoder, reference: Encoder, *, name: str) -> None:
    """Raise NotReady unless every check text's vector has a cosine of at least 0.98 with the reference's."""
    for text in CHECK_TEXTS:
        cosine = float(np.dot(candidate.encode(text), reference.encode(text)))
        if cosine < MIN_COSINE:
            raise NotReady(
                f"the int8 graph of {name} is off: cosine {cosine:.4f} for {text[:40]!r} "
                f"is below {MIN_COSINE}; use precision=fp32",
                reason="EMBEDDER_INACCURATE",
            )
