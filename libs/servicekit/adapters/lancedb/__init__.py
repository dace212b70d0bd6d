"""The vector store on LanceDB, embedded.

LanceDB's package imports a client of remote catalogues, which builds a validator for each of its hundred methods: half
a second of every start, for methods that nothing here calls. They go without.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pydantic


def _as_it_is(function: Callable[..., Any] | None = None, /, **_: Any) -> Any:
    return function if function is not None else _as_it_is


@contextmanager
def _without_call_validators() -> Iterator[None]:
    """Leave functions as they are that pydantic would wrap meanwhile."""
    kept = pydantic.validate_call
    pydantic.validate_call = _as_it_is
    try:
        yield
    finally:
        pydantic.validate_call = kept


with _without_call_validators():
    import lancedb as lancedb  # the first import of it in a process is this one
