"""The `/metrics` of TGI 3, in Prometheus text as its exporter prints them: no `_total`, durations as histograms.

Filled by `answering.py`; read by `server.py`.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from servicekit.testing.tgi_server.dials import Dials

_DURATIONS = {
    "tgi_request_duration": "Request duration",
    "tgi_request_validation_duration": "Request validation duration",
    "tgi_request_queue_duration": "Request queue duration",
    "tgi_request_inference_duration": "Request inference duration",
    "tgi_request_mean_time_per_token_duration": "Mean time per token duration for a request",
}
_SIZES = {
    "tgi_request_input_length": "Input token length",
    "tgi_request_max_new_tokens": "Maximum new tokens for the request",
    "tgi_request_generated_tokens": "Generated tokens for the request",
}
_DURATION_BUCKETS = 35
_SHORTEST_S = 0.0001
_SIZE_BUCKETS = 100


class _Histogram:
    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def record(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str) -> list[str]:
        lines, below = [], 0
        for bound, count in zip(self._bounds, self._counts, strict=False):
            below += count
            lines.append(f'{name}_bucket{{le="{bound:g}"}} {below}')
        total = sum(self._counts)
        return [*lines, f'{name}_bucket{{le="+Inf"}} {total}', f"{name}_sum {self._sum:.12g}", f"{name}_count {total}"]


class Metrics:
    """What is counted and measured about requests; gauges are read when asked."""

    def __init__(self, dials: Dials) -> None:
        durations = [_SHORTEST_S * 1.5**power for power in range(1, _DURATION_BUCKETS + 1)]
        sizes = [dials.max_total_tokens / _SIZE_BUCKETS * (step + 1) for step in range(_SIZE_BUCKETS)]
        self._histograms = {name: _Histogram(durations) for name in _DURATIONS}
        self._histograms |= {name: _Histogram(sizes) for name in _SIZES}
        self.requests = 0
        self.successes = 0
        self.failures: Counter[str] = Counter()

    def record(self, **values: float) -> None:
        """Measure; names are the histograms' without `tgi_request_`."""
        for name, value in values.items():
            self._histograms[f"tgi_request_{name}"].record(value)

    def text(self, *, queued: int, running: int, running_tokens: int) -> str:
        """Everything, as a scrape gets it."""
        blocks = [
            _single("tgi_request_count", "counter", "Total number of requests", self.requests),
            _single("tgi_request_success", "counter", "Number of successful requests", self.successes),
            _single("tgi_queue_size", "gauge", "Current number of requests in the queue", queued),
            _single("tgi_batch_current_size", "gauge", "Current batch size", running),
            _single("tgi_batch_current_max_tokens", "gauge", "Maximum tokens for the current batch", running_tokens),
        ]
        if self.failures:
            rows = [f'tgi_request_failure{{err="{kind}"}} {count}' for kind, count in self.failures.items()]
            blocks.append(_block("tgi_request_failure", "counter", "Number of failed requests", rows))
        for name, told in (_DURATIONS | _SIZES).items():
            blocks.append(_block(name, "histogram", told, self._histograms[name].lines(name)))
        return "\n".join(blocks)


def _single(name: str, kind: str, told: str, value: int) -> str:
    return _block(name, kind, told, [f"{name} {value}"])


def _block(name: str, kind: str, told: str, rows: list[str]) -> str:
    return "\n".join([f"# HELP {name} {told}", f"# TYPE {name} {kind}", *rows, ""])
