"""An engine's load is read from the metrics of each known server."""

import pytest

from servicekit.adapters.engine_load import read_load
from servicekit.domain.generation import EngineLoad

_TGI = """# TYPE tgi_queue_size gauge
tgi_queue_size 7
# TYPE tgi_batch_current_size gauge
tgi_batch_current_size 3
tgi_batch_current_size_other 99
"""
_VLLM = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:num_requests_running{engine="1",model_name="m"} 3.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
vllm:e2e_request_latency_seconds_bucket{le="0.3"} 12.0
"""
_SGLANG = """# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="m",tp_rank="0"} 4.0
sglang:num_queue_reqs{model_name="m",tp_rank="0"} 1e1
"""
_LLAMA = "# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing 1\nllamacpp:requests_deferred 5\n"


@pytest.mark.parametrize(
    ("page", "load"),
    [
        (_TGI, EngineLoad(7, 3)),
        (_VLLM, EngineLoad(1, 5)),
        (_SGLANG, EngineLoad(10, 4)),
        (_LLAMA, EngineLoad(5, 1)),
    ],
    ids=["tgi", "vllm", "sglang", "llama.cpp"],
)
def test_gauges_of_each_server_are_read(page: str, load: EngineLoad) -> None:
    """Queue and batch by the server's own names; rows of several workers are added up."""
    assert read_load(page) == load


def test_gauge_without_rows_is_zero() -> None:
    """A server that was asked nothing yet has set no gauge."""
    assert read_load("# TYPE vllm:num_requests_running gauge\n") == EngineLoad(0, 0)


@pytest.mark.parametrize("page", ["", "go_gc_duration_seconds 1\n", "<html>not vllm: at all</html>"])
def test_page_of_another_server_tells_nothing(page: str) -> None:
    """What is of no known server gives no load."""
    assert read_load(page) is None
