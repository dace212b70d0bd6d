"""How a run of the stack ends is told in a line and by the exit status."""

import pytest

from servicekit.errors import InvalidRequest
from services.local.__main__ import run_to_end
from services.local.process import StartFailed


@pytest.mark.parametrize(
    ("end", "status", "told"),
    [
        (StartFailed("broker was not ready"), 1, "broker was not ready"),
        (ExceptionGroup("of a task group", [StartFailed("retriever ended")]), 1, "retriever ended"),
        (InvalidRequest("the folder is in use"), 2, "the folder is in use"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_an_end_is_told(end: BaseException, status: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback: what happened, and a status that a script can use."""

    async def work() -> None:
        raise end

    assert run_to_end(work()) == status
    assert capsys.readouterr().err == f"» {told}\n"
