"""An error of ClickHouse is the rows' fault only where it says so; a server in trouble is asked again."""

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from servicekit.adapters.clickhouse.errors import normalised
from servicekit.errors import BackendTimeout, BackendUnavailable, BinnacleError, InvalidRequest, NotReady, Overloaded


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (117, InvalidRequest),  # INCORRECT_DATA
        (395, InvalidRequest),  # FUNCTION_THROW_IF_VALUE_IS_NON_ZERO
        (60, NotReady),  # UNKNOWN_TABLE
        (159, BackendTimeout),  # TIMEOUT_EXCEEDED
        (241, Overloaded),  # MEMORY_LIMIT_EXCEEDED
        (236, BackendUnavailable),  # ABORTED
        (242, BackendUnavailable),  # TABLE_IS_READ_ONLY
        (243, BackendUnavailable),  # NOT_ENOUGH_SPACE
        (319, BackendUnavailable),  # UNKNOWN_STATUS_OF_INSERT
        (999, BackendUnavailable),  # KEEPER_EXCEPTION
    ],
)
def test_each_code_is_told_as_what_it_means(code: int, expected: type[BinnacleError]) -> None:
    """A full disk or a lost Keeper must not turn good rows into dead letters."""
    with pytest.raises(expected), normalised():
        raise DatabaseError("it failed", code=code)
