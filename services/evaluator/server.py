"""The gRPC face of the evaluator: decode, one domain call, encode."""

import asyncio
from typing import Any

from binnacle.evaluator.v1 import evaluator_service_pb2 as rpc
from binnacle.evaluator.v1 import evaluator_service_pb2_grpc as stubs
from services.evaluator.convert import metrics_from, scores_to, subject_from
from services.evaluator.scoring import score_subject

SERVICE_NAME = rpc.DESCRIPTOR.services_by_name["EvaluatorService"].full_name
SCOPES = {"ScoreAnswer": "evaluate"}


class EvaluatorServicer(stubs.EvaluatorServiceServicer):
    """Scores answers on demand with the metrics of the request log."""

    async def ScoreAnswer(  # noqa: N802  # the proto names it
        self,
        request: rpc.ScoreAnswerRequest,
        context: Any,  # noqa: ARG002  # the signature of every servicer method
    ) -> rpc.ScoreAnswerResponse:
        """Scores in a thread: an answer at its bounds against 100 chunks takes a while."""
        subject, metrics = subject_from(request), metrics_from(request)
        return scores_to(await asyncio.to_thread(score_subject, subject, metrics=metrics))
