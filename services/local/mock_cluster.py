"""librdkafka's mock cluster through its C interface: a Kafka broker in this process's memory.

Used by `broker.py`; `confluent-kafka` ships the library, and starts such a cluster itself, but without a way to
create topics with their partitions or to shorten the first rebalance of a group.

Source: `rdkafka_mock.h` of librdkafka 2.16. The broker binds to a free port of 127.0.0.1; the library offers
no way to choose it.
"""

import ctypes
from typing import Final

from confluent_kafka import cimpl

_PRODUCER: Final = 0
_ERROR_BYTES: Final = 512
_CONF_OK: Final = 0
_NO_ERROR: Final = 0


class MockCluster:
    """A running cluster of one broker; everything in it ends with `close`."""

    def __init__(self) -> None:
        self._library = _load()
        self._client: int | None = _new_client(self._library)
        self._cluster = self._library.rd_kafka_handle_mock_cluster(self._client)
        # Three seconds by default; the stack's consumers would all wait for it.
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        self.address: str = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def create_topic(self, name: str, *, partitions: int) -> None:
        """Create a topic; those not created are, with four partitions, on first use.

        Raises:
            ValueError: the cluster refuses, such as for a topic that exists.
        """
        error = self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
        if error != _NO_ERROR:
            text = self._library.rd_kafka_err2str(error).decode()
            raise ValueError(f"topic {name!r} with {partitions} partitions: {text}")

    def close(self) -> None:
        """Stop the broker and forget what it holds."""
        if self._client is not None:
            self._library.rd_kafka_destroy(self._client)
            self._client = None


def _load() -> ctypes.CDLL:
    """The library that the extension module is linked with, and the signatures used here."""
    library = ctypes.CDLL(cimpl.__file__)
    library.rd_kafka_conf_new.restype = ctypes.c_void_p
    library.rd_kafka_conf_set.argtypes = [
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
    ]
    library.rd_kafka_new.restype = ctypes.c_void_p
    library.rd_kafka_new.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    library.rd_kafka_destroy.argtypes = [ctypes.c_void_p]
    library.rd_kafka_handle_mock_cluster.restype = ctypes.c_void_p
    library.rd_kafka_handle_mock_cluster.argtypes = [ctypes.c_void_p]
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [ctypes.c_void_p]
    library.rd_kafka_mock_group_initial_rebalance_delay_ms.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    library.rd_kafka_mock_topic_create.argtypes = [
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_int,
    ]
    library.rd_kafka_err2str.restype = ctypes.c_char_p
    return library


def _new_client(library: ctypes.CDLL) -> int:
    message = ctypes.create_string_buffer(_ERROR_BYTES)
    settings = library.rd_kafka_conf_new()
    for name, value in ((b"test.mock.num.brokers", b"1"), (b"log_level", b"3")):
        if library.rd_kafka_conf_set(settings, name, value, message, len(message)) != _CONF_OK:
            raise RuntimeError(f"librdkafka refuses {name.decode()}: {message.value.decode()}")
    client: int | None = library.rd_kafka_new(_PRODUCER, settings, message, len(message))
    if not client:
        raise RuntimeError(f"librdkafka starts no mock cluster: {message.value.decode()}")
    return client
