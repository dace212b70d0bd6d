"""Metrics and the one canonical log line of an interaction. Called by `answering.py` when its record is closed."""

import structlog

from servicekit.telemetry.metrics import counter, histogram
from services.gateway.record import Interaction

log = structlog.get_logger()

# Requests that were accepted, by how they ended.
INTERACTIONS = counter(
    "gateway_interactions", meaning="Accepted requests by outcome", labels=("outcome", "route", "channel")
)
# From acceptance to the closed record, the acknowledgement not included.
DURATION_S = histogram("gateway_interaction_duration", meaning="Time to answer", labels=("outcome", "route"))
# From acceptance to the first text that was released.
FIRST_TOKEN_S = histogram("gateway_time_to_first_token", meaning="Time to first token", labels=("route",))
# One stage of the path.
STAGE_S = histogram("gateway_stage_duration", meaning="Time in one stage of the path", labels=("stage",))
# Rungs taken so that an answer could be given at all.
DEGRADATIONS = counter("gateway_degradations", meaning="Rungs taken", labels=("rung", "cause"))


def observe(interaction: Interaction) -> None:
    """Count a closed interaction and log its line; nothing of its texts."""
    outcome, route = str(interaction.outcome), interaction.question.route
    INTERACTIONS.labels(outcome, route, interaction.question.channel).inc()
    DURATION_S.labels(outcome, route).observe(interaction.duration_s)
    if interaction.first_token_s is not None:
        FIRST_TOKEN_S.labels(route).observe(interaction.first_token_s)
    for timing in interaction.timings:
        STAGE_S.labels(timing.stage).observe(timing.duration_us / 1e6)
    for degradation in interaction.degradations:
        DEGRADATIONS.labels(degradation.rung, degradation.cause).inc()
    log.info(
        "interaction.completed",
        outcome=outcome,
        route=route,
        elapsed_ms=round(interaction.duration_s * 1e3, 2),
        chunks=len(interaction.chunks),
        verdicts=len(interaction.verdicts),
        degradations=[degradation.rung for degradation in interaction.degradations],
        output_tokens=interaction.usage.output_tokens,
        reason=interaction.error_reason,
    )
