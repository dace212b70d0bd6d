"""Untrusted files in processes of their own: read, bounded, replaced."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from servicekit.errors import InvalidRequest
from services.retriever.formats.media_types import DOCX, PDF
from services.retriever.formats.parse_workers import ParseWorkers, running_workers
from tests.office_files import make_bomb, make_docx, make_pdf, paragraph

ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@pytest.fixture
async def workers() -> AsyncIterator[ParseWorkers]:
    """One process at a time."""
    async with running_workers(workers=1, memory_mb=400, timeout_s=30, environment=ENVIRONMENT) as pool:
        yield pool


async def test_files_are_read_one_after_another_by_one_process(workers: ParseWorkers) -> None:
    """A refusal does not cost the process, and comes with its reason."""
    assert (await workers.read(make_pdf([["The moon pulls."]]), media_type=PDF)).text == "The moon pulls."
    (process,) = workers._idle
    with pytest.raises(InvalidRequest, match="is no Word file"):
        await workers.read(b"nothing", media_type=DOCX)
    read = await workers.read(make_docx(paragraph("Needle", style="Heading1")), media_type=DOCX)
    assert (read.text, read.blocks[0].heading_path) == ("Needle", ("Needle",))
    assert workers._idle == [process]


async def test_a_bomb_is_refused_and_hinders_nothing(workers: ParseWorkers) -> None:
    """What unfolds beyond the memory is refused; the next file is read."""
    with pytest.raises(InvalidRequest) as caught:
        await workers.read(make_bomb(200), media_type=DOCX)
    assert caught.value.reason == "PARSE_LIMIT"
    assert (await workers.read(make_docx(paragraph("x")), media_type=DOCX)).text == "x"


async def test_what_takes_too_long_is_killed() -> None:
    """The bound of time ends the process that reads it."""
    async with running_workers(workers=1, memory_mb=400, timeout_s=0.001, environment=ENVIRONMENT) as pool:
        with pytest.raises(InvalidRequest) as caught:
            await pool.read(make_docx(paragraph("x")), media_type=DOCX)
        assert caught.value.reason == "PARSE_LIMIT"
        assert pool._idle == []


async def test_a_process_killed_by_someone_else_costs_no_document(workers: ParseWorkers) -> None:
    """A document whose reader was killed while it waited gets another one."""
    await workers.read(make_docx(paragraph("x")), media_type=DOCX)
    os.kill(workers._idle[0].pid, signal.SIGKILL)
    results = await asyncio.gather(*(workers.read(make_docx(paragraph("y")), media_type=DOCX) for _ in range(3)))
    assert [one.text for one in results] == ["y", "y", "y"]
