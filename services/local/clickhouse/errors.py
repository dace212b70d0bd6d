"""The errors that the embedded ClickHouse answers with: ClickHouse's numbers, names and wording.

Raised throughout `services.local.clickhouse`; `answer.py` turns them into responses.
"""


class EngineError(Exception):
    """An error of the engine or of its front: its code, and its text as ClickHouse's HTTP interface sends it."""

    def __init__(self, text: str, *, code: int = 0) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


def refusal(message: str, *, code: int, name: str) -> EngineError:
    """An error of the front's own, worded as the engine words its."""
    return EngineError(f"Code: {code}. DB::Exception: {message}. ({name})", code=code)
