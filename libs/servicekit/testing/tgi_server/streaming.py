"""Paces a generation and makes it fail as the dials say, token by token.

Called by `server.py`; writes frames of either dialect to the response.
"""

import asyncio
from http import HTTPStatus

from servicekit.testing.tgi_server.dials import Counts, Dials, Fault
from servicekit.testing.tgi_server.formats import Format
from servicekit.testing.tgi_server.generation import Plan, Refusal, invalid
from servicekit.testing.tgi_server.wire import Response

OVERLOADED = Refusal(HTTPStatus.TOO_MANY_REQUESTS, "overloaded", "Model is overloaded")
FAILED = Refusal(HTTPStatus.FAILED_DEPENDENCY, "generation", "Request failed during generation: out of memory")
UNAVAILABLE = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "healthcheck", "Not healthy")


def refuse_at_start(fault: Fault) -> None:
    """Raise what the fault answers before any token."""
    if fault is Fault.REFUSE:
        raise OVERLOADED
    if fault is Fault.INVALID:
        raise invalid("the dials say so")
    if fault is Fault.UNAVAILABLE:
        raise UNAVAILABLE


async def stream(response: Response, plan: Plan, frames: Format, *, dials: Dials, fault: Fault, counts: Counts) -> bool:
    """Send the generation as a stream; True if it was sent to its end."""
    for index, piece in enumerate(plan.pieces, start=1):
        if index > dials.fault_after_tokens and not await _fail(response, frames, fault):
            return False
        await pace(index, dials)
        counts.output_tokens += 1
        await response.send(frames.frame(index, piece))
    if end := frames.end_frames():
        await response.send(end)
    response.end_stream()
    return True


async def pace(index: int, dials: Dials) -> None:
    """Wait as long as token `index` takes."""
    if index == 1 and dials.first_token_s > 0:
        await asyncio.sleep(dials.first_token_s)
    elif index > 1 and dials.tokens_per_s > 0:
        await asyncio.sleep(1 / dials.tokens_per_s)


async def _fail(response: Response, frames: Format, fault: Fault) -> bool:
    """Do what the fault does in mid-stream; False if nothing more is to be sent."""
    match fault:
        case Fault.STALL:
            await asyncio.Event().wait()
        case Fault.CUT:
            response.cut()
        case Fault.END_EARLY:
            response.end_stream()
        case Fault.GARBAGE:
            await response.send(b'data:{"index":1,"tok\xff\xfe\n\n')
            response.end_stream()
        case Fault.ERROR:
            await response.send(frames.error_frame(FAILED))
            response.end_stream()
        case _:
            return True
    return False
