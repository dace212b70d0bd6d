"""Request ids: taken over when well formed, made otherwise, renamed in place."""

import pytest

from servicekit.telemetry.correlation import accept_request_id, correlated, current_request_id, name_request


@pytest.mark.parametrize("candidate", ["a", "0197-x.y:z_1", "A" * 128])
def test_well_formed_id_is_kept(candidate: str) -> None:
    """A caller's own id travels on."""
    assert accept_request_id(candidate) == candidate


@pytest.mark.parametrize("candidate", [None, "", "a b", "a\n", "é", "A" * 129, b"a"])
def test_odd_id_is_dropped(candidate: str | bytes | None) -> None:
    """What could break a log or a header is not taken over."""
    assert accept_request_id(candidate) == ""


def test_request_is_renamed_where_it_runs() -> None:
    """A new name holds until the work ends."""
    with correlated("first") as correlation:
        name_request("second")
        assert current_request_id() == correlation.request_id == "second"
    assert current_request_id() == ""
