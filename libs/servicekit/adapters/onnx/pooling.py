"""From the vectors of a text's tokens to its one vector, as sentence-transformers does it. Pure; used by `folder.py`.

One text at a time: there is no padding, so no token is masked but those of a prompt that is not to be pooled.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from servicekit.adapters.onnx.sentence_model import Pooling

Floats = NDArray[np.float32]


def pool(states: Floats, poolings: Sequence[Pooling], *, skip: int = 0) -> Floats:
    """The joined vector of `states` [tokens, dimension]; the first `skip` tokens count only as the CLS token."""
    kept = states[skip:] if skip < len(states) else states
    return np.concatenate([_pool_one(states, kept, mode, skip=len(states) - len(kept)) for mode in poolings])


def _pool_one(states: Floats, kept: Floats, mode: Pooling, *, skip: int) -> Floats:
    match mode:
        case Pooling.CLS:
            return np.asarray(states[0])
        case Pooling.MAX:
            return np.asarray(kept.max(axis=0), dtype=np.float32)
        case Pooling.MEAN:
            return np.asarray(kept.mean(axis=0), dtype=np.float32)
        case Pooling.MEAN_SQRT_LEN:
            return np.asarray(kept.sum(axis=0) / np.sqrt(len(kept)), dtype=np.float32)
        case Pooling.WEIGHTED_MEAN:
            weights = np.arange(skip + 1, skip + len(kept) + 1, dtype=np.float32)
            return np.asarray(weights @ kept / weights.sum(), dtype=np.float32)
        case Pooling.LAST_TOKEN:
            return np.asarray(kept[-1])


def to_unit(vector: Floats) -> Floats:
    """The vector at length 1."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), dtype=np.float32)
