"""Settings of all tests, and the real Kafka, Weaviate and llama.cpp of those that need one.

Hypothesis draws the same examples in every run, so that a red test is about the change.

`HYPOTHESIS_PROFILE=explore make test` draws new ones, ten times as many; what it finds belongs into a test of its own.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from services.local import native_llama, native_weaviate
from services.local.layout import choose_ports
from services.local.native_install import obstacle
from services.local.native_kafka import NativeKafka
from services.local.native_server import running_server

settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session")
def real_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of a real Kafka that is kept for tests, which may delete Binnacle's topics there.

    `BINNACLE_TEST_KAFKA` names one; otherwise a native broker is started, or, where none can be, the test is skipped.
    """
    if given := os.environ.get("BINNACLE_TEST_KAFKA", ""):
        yield given
        return
    if reason := obstacle():
        pytest.skip(f"{reason}; or let BINNACLE_TEST_KAFKA name a Kafka (host:port) that is kept for tests")
    ports = choose_ports({}, free=True)
    native = NativeKafka(tmp_path_factory.mktemp("kafka"), ports["kafka"], ports["kafka.controller"])
    with running_server(native):
        yield native.address


@pytest.fixture(scope="session")
def real_weaviate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`weaviate://…` of a real Weaviate that is kept for tests; each makes and deletes collections of its own."""
    if given := os.environ.get("BINNACLE_TEST_WEAVIATE", ""):
        yield given
        return
    if reason := native_weaviate.obstacle():
        pytest.skip(
            f"{reason}; or let BINNACLE_TEST_WEAVIATE name one (weaviate://host:port?grpc_port=…) kept for tests"
        )
    ports = choose_ports({}, free=True)
    native = native_weaviate.on_ports(tmp_path_factory.mktemp("weaviate"), ports.by_name)
    with running_server(native):
        yield native.url


@pytest.fixture(scope="session")
def real_llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`openai://…` of a real llama.cpp server; its tiny model of random weights answers nonsense."""
    if given := os.environ.get("BINNACLE_TEST_LLAMA", ""):
        yield given
        return
    if reason := native_llama.obstacle():
        pytest.skip(f"{reason}; or let BINNACLE_TEST_LLAMA name one (openai://host:port/v1)")
    native = native_llama.NativeLlama(tmp_path_factory.mktemp("llama"))
    with running_server(native):
        yield native.url
