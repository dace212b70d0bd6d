"""The statements that count minutes from collapsed rows, one for each rollup. Used by `rollups.py`.

Each takes the minutes as a list of Unix seconds and the span that holds them. A group that an earlier version of a
minute has and the rows no longer have is written with zeros, so that a newer version replaces the whole of the older.
"""

from collections.abc import Mapping
from types import MappingProxyType

# Outcomes by number: FAILED, CANCELLED and DEADLINE are errors; BLOCKED is the guardrail's; REFUSED is honest.
_USAGE = """
INSERT INTO usage_minutes (
    tenant, minute, project, route, model, prompt_id, prompt_version, version, requests, errors, blocked, refused,
    input_tokens, output_tokens, cached_tokens, cost_microusd, latency_us, time_to_first_token_us)
SELECT
    tenant, minute, project, route, model, prompt_id, prompt_version,
    now64(6, 'UTC') AS version,
    countIf(found),
    countIf(found AND outcome IN (4, 5, 6)),
    countIf(found AND outcome = 2),
    countIf(found AND outcome = 3),
    sum(input), sum(output), sum(cached), sum(cost),
    quantilesTDigestStateIf(0.5, 0.95, 0.99)(duration, found),
    quantilesTDigestStateIf(0.5, 0.95, 0.99)(first_token, found AND first_token > 0)
FROM
(
    SELECT
        tenant, toStartOfMinute(complete_time) AS minute, project, route, model,
        prompt.prompt_id AS prompt_id, prompt.version AS prompt_version, 1 AS found, outcome,
        usage.input_tokens AS input, usage.output_tokens AS output, usage.cached_tokens AS cached,
        cost_microusd AS cost, duration_us AS duration, time_to_first_token_us AS first_token
    FROM interactions_raw FINAL
    WHERE complete_time >= {start} AND complete_time < {end} AND minute IN {minutes}
    UNION ALL
    SELECT tenant, minute, project, route, model, prompt_id, prompt_version, 0, 0, 0, 0, 0, 0, 0, 0
    FROM usage_minutes FINAL
    WHERE minute IN {minutes} AND requests > 0
)
GROUP BY tenant, minute, project, route, model, prompt_id, prompt_version
SETTINGS do_not_merge_across_partitions_select_final = 1, max_threads = 1
"""

# Scores of offline runs are no measure of a minute's traffic. A score counts as many times as answers it stands for.
_SCORES = """
INSERT INTO score_minutes (
    tenant, minute, route, model, prompt_version, metric, metric_version, version, scores, unmeasured,
    value_sum, weight_sum, weighted_value_sum, value_quantiles)
SELECT
    tenant, minute, route, model, prompt_version, metric, metric_version,
    now64(6, 'UTC') AS version,
    countIf(found AND measured),
    countIf(found AND NOT measured),
    sumIf(score, measured),
    sumIf(weight, measured),
    sumIf(score * weight, measured),
    quantilesTDigestStateIf(0.05, 0.5, 0.95)(score, measured)
FROM
(
    SELECT
        tenant, toStartOfMinute(interaction_time) AS minute, route, model, prompt_version, metric, metric_version,
        1 AS found, isNotNull(value) AS measured, ifNull(value, 0.) AS score,
        if(inclusion_probability > 0, 1 / inclusion_probability, 1.) AS weight
    FROM evaluations_raw FINAL
    WHERE interaction_time >= {start} AND interaction_time < {end} AND minute IN {minutes} AND run_id = ''
    UNION ALL
    SELECT tenant, minute, route, model, prompt_version, metric, metric_version, 0, 0, 0., 0.
    FROM score_minutes FINAL
    WHERE minute IN {minutes} AND scores + unmeasured > 0
)
GROUP BY tenant, minute, route, model, prompt_version, metric, metric_version
SETTINGS do_not_merge_across_partitions_select_final = 1, max_threads = 1
"""

STATEMENTS: Mapping[str, str] = MappingProxyType({"usage": _USAGE, "scores": _SCORES})
