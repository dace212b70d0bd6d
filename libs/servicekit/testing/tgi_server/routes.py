"""The routes that generate: each reads its body, makes plans, and has the machine run them.

Called by `server.py`. TGI's own routes and the OpenAI-compatible ones end in the same parameters, checked once.
"""

import json
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from itertools import count
from typing import Any

from servicekit.testing.tgi_server.answering import GARBAGE, Machine
from servicekit.testing.tgi_server.counting import End, Generation
from servicekit.testing.tgi_server.dials import Fault
from servicekit.testing.tgi_server.frames import Format
from servicekit.testing.tgi_server.generate_format import GenerateFormat
from servicekit.testing.tgi_server.generation import Plan, plan
from servicekit.testing.tgi_server.openai_format import DONE, ChatFormat, CompletionFormat, completion_body
from servicekit.testing.tgi_server.openai_requests import chat_parameters, chat_prompt, completion_parameters, prompts
from servicekit.testing.tgi_server.parameters import read_parameters
from servicekit.testing.tgi_server.refusals import FAILED, INCOMPLETE, Refusal, invalid
from servicekit.testing.tgi_server.wire import Request, Response

_COMPUTE_TYPE = "gpu+optimized"
_MILLISECONDS = 1_000


class Routes:
    """The generating routes of one machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._numbers = count(1)

    async def generate(self, request: Request, response: Response, body: Mapping[str, Any]) -> None:
        """`/generate`, `/generate_stream`, and `/`, which is either, and a list of one when it does not stream."""
        streamed = request.path == "/generate_stream" or (request.path == "/" and body.get("stream") is True)
        try:
            fault = self._machine.take_fault()
            parameters = read_parameters(body.get("parameters"), self._machine.dials)
            if streamed and parameters.best_of != 1:
                raise invalid("`best_of` != 1 is not supported when streaming tokens")
            if streamed and parameters.decoder_input_details:
                raise invalid("`decoder_input_details` == true is not supported when streaming tokens")
            plans = [plan(self._machine.dials, body.get("inputs"), parameters) for _ in range(parameters.best_of)]
        except Refusal as refusal:
            self._refuse(request, response, GenerateFormat(Plan(), Generation("", "")), refusal, streamed=streamed)
            return
        frames = [GenerateFormat(one, self._generation(request, one)) for one in plans]
        if streamed:
            await self._machine.stream(response, frames, fault=fault, headers=_stream_headers(plans))
        elif await self._run_whole(response, frames, fault):
            whole = frames[0].whole()
            if len(frames) > 1 and "details" in whole:
                whole["details"]["best_of_sequences"] = [other.sequence() for other in frames[1:]]
            _answer(response, [whole] if request.path == "/" else whole, frames)

    async def chat(self, request: Request, response: Response, body: Mapping[str, Any]) -> None:
        """`/v1/chat/completions`."""
        streamed = body.get("stream") is True
        model = self._machine.dials.model
        try:
            fault = self._machine.take_fault()
            parameters = read_parameters(chat_parameters(body, self._machine.dials), self._machine.dials)
            planned = plan(self._machine.dials, chat_prompt(body), parameters)
        except Refusal as refusal:
            nothing = ChatFormat(Plan(), Generation("", ""), model=model)
            self._refuse(request, response, nothing, refusal, streamed=streamed)
            return
        frames = ChatFormat(
            planned,
            self._generation(request, planned),
            model=model,
            include_usage=self._includes_usage(body),
            logprobs=body.get("logprobs") is True,
        )
        if streamed:
            await self._machine.stream(response, [frames], fault=fault, headers=_stream_headers([planned]))
        elif await self._run_whole(response, [frames], fault):
            _answer(response, frames.whole(), [frames])

    async def completions(self, request: Request, response: Response, body: Mapping[str, Any]) -> None:
        """`/v1/completions`: up to `max_client_batch_size` prompts, whose chunks mix in a stream."""
        dials = self._machine.dials
        streamed = body.get("stream") is True
        nothing = CompletionFormat(Plan(), Generation("", ""), model=dials.model)
        try:
            texts = prompts(body, dials)
            raw = completion_parameters(body, dials)
        except Refusal as refusal:  # refused before it streams, so never inside a stream
            self._refuse(request, response, nothing, refusal, streamed=False)
            return
        try:
            fault = self._machine.take_fault()
            plans = [plan(dials, text, read_parameters(raw, dials)) for text in texts]
        except Refusal as refusal:
            self._refuse(request, response, nothing, refusal, streamed=streamed)
            return
        frames = [
            CompletionFormat(one, self._generation(request, one), model=dials.model, index=index)
            for index, one in enumerate(plans)
        ]
        if streamed:
            await self._machine.stream(response, frames, fault=fault, headers=_stream_headers(plans), done=DONE)
        elif await self._run_whole(response, frames, fault):
            _answer(response, completion_body(dials.model, frames), frames)

    def _generation(self, request: Request, planned: Plan) -> Generation:
        return Generation(
            request.headers.get("x-request-id") or f"g{next(self._numbers)}",
            request.path,
            input_tokens=planned.input_tokens,
            adapter=planned.parameters.adapter,
            seed=planned.seed,
        )

    def _includes_usage(self, body: Mapping[str, Any]) -> bool:
        return self._machine.dials.report_usage and bool((body.get("stream_options") or {}).get("include_usage"))

    def _refuse(
        self, request: Request, response: Response, frames: Format, refusal: Refusal, *, streamed: bool
    ) -> None:
        """An error before the first token: by status, or as the only frame of a stream with status 200."""
        self._machine.ledger.refuse(request.headers.get("x-request-id") or f"g{next(self._numbers)}", request.path)
        self._machine.metrics.failures[refusal.error_type or "validation"] += 1
        if streamed and refusal.error_type:
            response.start_stream()
            response.write(frames.error_frame(refusal))
            response.end_stream()
        else:
            answer_refusal(response, refusal)

    async def _run_whole(self, response: Response, frames: Sequence[Format], fault: Fault) -> bool:
        """Whether there is an answer to write; what a fault leaves is written here."""
        if await self._machine.generate(response, frames, fault=fault):
            return True
        headers = {"content-type": "application/json"}
        match fault:
            case Fault.ERROR:
                answer_refusal(response, FAILED)
            case Fault.INCOMPLETE:
                answer_refusal(response, INCOMPLETE)
            case Fault.GARBAGE:
                response.whole(HTTPStatus.OK, GARBAGE, headers)
            case Fault.END_EARLY:
                response.whole(HTTPStatus.OK, b'{"generated_text":"The doc', headers, length=_MILLISECONDS)
                response.finish()
            case _:
                pass
        return False


def _answer(response: Response, body: Any, frames: Sequence[Format]) -> None:
    response.json(HTTPStatus.OK, body, _whole_headers([one.generation for one in frames], frames))


def answer_refusal(response: Response, refusal: Refusal) -> None:
    """An error as an answer of its own."""
    if refusal.error_type:
        response.json(refusal.status, refusal.body)
    else:
        response.text(refusal.status, refusal.message)


def read_body(request: Request) -> dict[str, Any]:
    """The JSON object that was sent.

    Raises:
        Refusal: 400, it is none.
    """
    try:
        body = json.loads(request.body)
    except ValueError:
        raise Refusal(HTTPStatus.BAD_REQUEST, "", "Failed to parse the request body as JSON") from None
    if not isinstance(body, dict):
        raise Refusal(HTTPStatus.BAD_REQUEST, "", "Failed to parse the request body as JSON: no object")
    return body


def _stream_headers(plans: Sequence[Plan]) -> dict[str, str]:
    characters = sum(len(one.prompt) for one in plans)
    return {
        "x-compute-type": _COMPUTE_TYPE,
        "x-compute-characters": str(characters),
        "x-accel-buffering": "no",
    }


def _whole_headers(generations: Sequence[Generation], frames: Sequence[Format]) -> dict[str, str]:
    """What TGI tells of an answer that is not streamed: times in milliseconds, but for `x-compute-time`."""
    assert all(one.end is End.COMPLETED for one in generations)
    total_s = time.monotonic() - min(one.started_at_s for one in generations)
    queue_s = max(one.queue_s for one in generations)
    output_tokens = sum(one.output_tokens for one in generations)
    milliseconds = {
        "x-total-time": total_s,
        "x-validation-time": 0.0,
        "x-queue-time": queue_s,
        "x-inference-time": total_s - queue_s,
        "x-time-per-token": (total_s - queue_s) / output_tokens,
    }
    return {
        "x-compute-type": _COMPUTE_TYPE,
        "x-compute-time": f"{total_s:.6f}",
        "x-compute-characters": str(sum(len(one.plan.prompt) for one in frames)),
        **{name: str(int(value * _MILLISECONDS)) for name, value in milliseconds.items()},
        "x-prompt-tokens": str(sum(one.input_tokens for one in generations)),
        "x-generated-tokens": str(output_tokens),
    }
