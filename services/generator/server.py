"""The gRPC face of the generator: decode, one domain call, encode."""

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from binnacle.generator.v1 import generator_service_pb2 as rpc
from binnacle.generator.v1 import generator_service_pb2_grpc as stubs
from servicekit.domain.generation import TokenEvent
from servicekit.errors import BinnacleError
from servicekit.rpc.deadline import current_budget
from services.generator.convert import answer_to, count_from, count_to, model_to, question_from, spent_to, token_to
from services.generator.generating import Generator, Spent
from services.generator.models import Models

SERVICE_NAME = rpc.DESCRIPTOR.services_by_name["GeneratorService"].full_name
SCOPES = {"GenerateAnswer": "generate", "CountTokens": "generate", "ListModels": "generate"}
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
        spent = Spent(())
        try:
            async with aclosing(self._generator.answer(question, remaining_s=_left_s())) as events:
                async for event in events:
                    if isinstance(event, Spent):
                        spent = event
                    else:
                        yield token_to(event) if isinstance(event, TokenEvent) else answer_to(event)
        except BinnacleError as error:
            error.details = spent_to(spent)
            raise

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


def _left_s() -> float:
    budget = current_budget()
    return budget.remaining_s() if budget else math.inf
