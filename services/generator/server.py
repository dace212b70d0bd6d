"""The gRPC face of the generator: decode, one domain call, encode."""

import math
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from binnacle.generator.v1 import generator_service_pb2 as rpc
from binnacle.generator.v1 import generator_service_pb2_grpc as stubs
from servicekit.domain.generation import TokenEvent, TokenLogprob
from servicekit.errors import BinnacleError, InvalidRequest
from servicekit.rpc.deadline import current_budget
from services.generator.convert import (
    answer_to,
    completion_from,
    completion_to,
    count_from,
    count_to,
    model_to,
    of_generation,
    question_from,
    spent_to,
    token_to,
)
from services.generator.generating import Answer, Generator, Spent
from services.generator.models import Models

SERVICE_NAME = rpc.DESCRIPTOR.services_by_name["GeneratorService"].full_name
SCOPES = dict.fromkeys(("GenerateAnswer", "CompleteAnswer", "CountTokens", "ListModels"), "generate")
_STATUS_WITHIN_S = 1.0


class GeneratorServicer(stubs.GeneratorServiceServicer):
    """Generates for whoever holds the scope; nothing here is a tenant's."""

    def __init__(self, generator: Generator, models: Models) -> None:
        self._generator = generator
        self._models = models

    async def GenerateAnswer(  # noqa: N802  # the proto names it
        self,
        request: rpc.GenerateAnswerRequest,
        context: Any,  # noqa: ARG002  # the signature of every servicer method
    ) -> AsyncGenerator[rpc.GenerateAnswerResponse, None]:
        """Tokens, then the end, or an error with the attempts among its details."""
        question = question_from(request)
        with _attempts_told() as note:
            async with aclosing(self._generator.answer(question, remaining_s=_left_s())) as events:
                async for event in events:
                    if isinstance(event, TokenEvent):
                        yield token_to(event)
                    elif isinstance(event, Answer):
                        yield answer_to(event)
                    else:
                        note(event)

    async def CompleteAnswer(  # noqa: N802  # the proto names it
        self,
        request: rpc.CompleteAnswerRequest,
        context: Any,  # noqa: ARG002  # the signature of every servicer method
    ) -> rpc.CompleteAnswerResponse:
        """The end alone, or an error with the attempts among its details."""
        question = completion_from(request)
        logprobs: list[TokenLogprob] = []
        try:
            with _attempts_told() as note:
                async with aclosing(self._generator.answer(question, remaining_s=_left_s(), hold=True)) as events:
                    async for event in events:
                        if isinstance(event, TokenEvent):
                            logprobs += event.logprobs
                        elif isinstance(event, Answer):
                            return completion_to(event, logprobs)
                        else:
                            note(event)
        except InvalidRequest as error:
            raise of_generation(error) from None
        raise AssertionError("a generation ends in an answer or an error")

    async def CountTokens(  # noqa: N802  # the proto names it
        self,
        request: rpc.CountTokensRequest,
        context: Any,  # noqa: ARG002  # the signature of every servicer method
    ) -> rpc.CountTokensResponse:
        """Counts as the model does."""
        text, alias = count_from(request)
        left_s = _left_s()
        within_s = None if math.isinf(left_s) else left_s
        return count_to(await self._models.get(alias).count_tokens(text, within_s=within_s))

    async def ListModels(  # noqa: N802  # the proto names it
        self,
        request: rpc.ListModelsRequest,  # noqa: ARG002  # it has no fields
        context: Any,  # noqa: ARG002  # the signature of every servicer method
    ) -> rpc.ListModelsResponse:
        """The aliases, and whether each engine answers now."""
        within_s = min(_STATUS_WITHIN_S, _left_s())
        return rpc.ListModelsResponse(models=map(model_to, await self._models.statuses(within_s=within_s)))


@contextmanager
def _attempts_told() -> Iterator[Callable[[Spent], None]]:
    """Takes a note of what was spent; an error then has the attempts among its details."""
    told: list[Spent] = []
    try:
        yield told.append
    except BinnacleError as error:
        error.details = spent_to(told[-1] if told else Spent(()))
        raise


def _left_s() -> float:
    budget = current_budget()
    return budget.remaining_s() if budget else math.inf
