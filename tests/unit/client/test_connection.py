"""Where the SDK finds a Binnacle."""

import json
from pathlib import Path

import pytest

from binnacle_client.connection import Connection
from servicekit.errors import InvalidRequest, Unauthenticated

_STACK = {
    "targets": {"gateway": "127.0.0.1:7700", "retriever": "127.0.0.1:9001"},
    "api_key": "bk_local",
    "kafka_bootstrap_servers": "127.0.0.1:9092",
    "clickhouse_url": "http://127.0.0.1:8123/",
    "openai_base_url": "http://127.0.0.1:7780/v1",
}


@pytest.fixture
def stack_file(tmp_path: Path) -> Path:
    """A stack file as the supervisor writes it."""
    path = tmp_path / "stack.json"
    path.write_text(json.dumps(_STACK), encoding="utf-8")
    return path


def test_environment_is_enough(tmp_path: Path) -> None:
    """Target and key from the environment need no stack; other services are on the same host."""
    env = {"BINNACLE_TARGET": "prod:7700", "BINNACLE_API_KEY": "k", "BINNACLE_STACK_FILE": str(tmp_path / "none")}
    connection = Connection.from_environment(env)
    assert connection.target("gateway") == "prod:7700"
    assert connection.target("analytics") == "prod:7706"


def test_the_stack_file_fills_in(stack_file: Path) -> None:
    """Without variables, the local stack's file says it all."""
    connection = Connection.from_environment({"BINNACLE_STACK_FILE": str(stack_file)})
    assert connection.api_key == "bk_local"
    assert connection.target("retriever") == "127.0.0.1:9001"


def test_another_target_forgets_the_local_stack(stack_file: Path) -> None:
    """The local key is not sent to another Binnacle than the local one."""
    with pytest.raises(Unauthenticated):
        Connection.from_environment({"BINNACLE_STACK_FILE": str(stack_file), "BINNACLE_TARGET": "prod:7700"})


def test_without_anything_the_fix_is_named(tmp_path: Path) -> None:
    """No stack and no key: the message says what to do."""
    with pytest.raises(Unauthenticated, match="make up"):
        Connection.from_environment({"BINNACLE_STACK_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"targets": 3}'])
def test_a_broken_stack_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    """A file that is no stack file is named in the error."""
    path = tmp_path / "stack.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidRequest, match=r"stack\.json"):
        Connection.from_stack_file(path)


def test_exports_are_what_other_programs_read(stack_file: Path) -> None:
    """`binnacle env` prints the variables that its contract names."""
    exports = Connection.from_environment({"BINNACLE_STACK_FILE": str(stack_file)}).exports()
    contract = {"BINNACLE_TARGET", "BINNACLE_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY"}
    contract |= {"KAFKA_BOOTSTRAP_SERVERS", "CLICKHOUSE_URL"}
    assert contract <= set(exports)
