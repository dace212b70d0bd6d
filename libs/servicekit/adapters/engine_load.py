"""Reads what an engine has to do from its Prometheus metrics, whichever of the known servers it is.

Pure; used by the TGI and OpenAI-compatible adapters. A page may hold thousands of rows of histograms: only the rows
of the names below are parsed.
"""

import re
from dataclasses import dataclass

from servicekit.domain.generation import EngineLoad


@dataclass(frozen=True, slots=True)
class _Gauges:
    """The names of one server's gauges; rows with labels (one for each worker or model) are added up."""

    marker: str
    queued: str
    running: str


# https://docs.vllm.ai/en/latest/usage/metrics.html, https://docs.sglang.ai/references/production_metrics.html,
# https://github.com/ggml-org/llama.cpp/tree/master/tools/server#get-metrics-prometheus-compatible-metrics-exporter
_SERVERS = (
    _Gauges("tgi_", "tgi_queue_size", "tgi_batch_current_size"),
    _Gauges("vllm:", "vllm:num_requests_waiting", "vllm:num_requests_running"),
    _Gauges("sglang:", "sglang:num_queue_reqs", "sglang:num_running_reqs"),
    _Gauges("llamacpp:", "llamacpp:requests_deferred", "llamacpp:requests_processing"),
)
_VALUE = r"(?:\{[^\n]*\})?[ \t]+([0-9.eE+-]+)"


def read_load(page: str) -> EngineLoad | None:
    """The load that a page of metrics tells; None where it is of no known server.

    A gauge without rows is 0: servers make one when they first set it.
    """
    for server in _SERVERS:
        if re.search(rf"^(?:# \w+ )?{server.marker}", page, re.MULTILINE):
            return EngineLoad(_sum(page, server.queued), _sum(page, server.running))
    return None


def _sum(page: str, name: str) -> int:
    rows = re.findall(rf"^{re.escape(name)}{_VALUE}", page, re.MULTILINE)
    return round(sum(map(float, rows)))
