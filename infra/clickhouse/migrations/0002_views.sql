-- What people query: each event once, enums by name, the columns most asked for unpacked.
-- A number that a view does not know yet is shown as the number.

CREATE OR REPLACE VIEW interactions AS
SELECT
    * REPLACE (
        transform(outcome, [0, 1, 2, 3, 4, 5, 6], ['UNSPECIFIED', 'ANSWERED', 'BLOCKED', 'REFUSED', 'FAILED', 'CANCELLED', 'DEADLINE'], toString(outcome)) AS outcome,
        transform(finish_reason, [0, 1, 2, 3, 4, 5, 6], ['UNSPECIFIED', 'STOP', 'LENGTH', 'CONTENT_FILTER', 'CANCELLED', 'ERROR', 'DEADLINE'], toString(finish_reason)) AS finish_reason,
        transform(cache_status, [0, 1, 2, 3, 4], ['UNSPECIFIED', 'BYPASS', 'MISS', 'EXACT_HIT', 'SEMANTIC_HIT'], toString(cache_status)) AS cache_status),
    prompt.prompt_id AS prompt_id,
    prompt.version AS prompt_version,
    usage.input_tokens AS input_tokens,
    usage.output_tokens AS output_tokens,
    usage.cached_tokens AS cached_tokens,
    length(chunks) AS chunk_count,
    length(citations) AS citation_count
FROM interactions_raw FINAL;

CREATE OR REPLACE VIEW guardrail_decisions AS
SELECT
    * REPLACE (
        transform(surface, [0, 1, 2, 3], ['UNSPECIFIED', 'INPUT', 'RETRIEVED', 'OUTPUT'], toString(surface)) AS surface,
        transform(action, [0, 1, 2, 3, 4], ['UNSPECIFIED', 'ALLOW', 'FLAG', 'REDACT', 'BLOCK'], toString(action)) AS action)
FROM guardrail_decisions_raw FINAL;

-- One row for each verdict of a decision.
CREATE OR REPLACE VIEW guardrail_verdicts AS
SELECT
    tenant, decide_time, request_id, route, event_id,
    transform(verdict.surface, [0, 1, 2, 3], ['UNSPECIFIED', 'INPUT', 'RETRIEVED', 'OUTPUT'], toString(verdict.surface)) AS surface,
    transform(verdict.action, [0, 1, 2, 3, 4], ['UNSPECIFIED', 'ALLOW', 'FLAG', 'REDACT', 'BLOCK'], toString(verdict.action)) AS action,
    verdict.detector AS detector,
    verdict.detector_version AS detector_version,
    verdict.rule AS rule,
    verdict.score AS score,
    verdict.chunk_id AS chunk_id,
    verdict.shadow AS shadow
FROM guardrail_decisions_raw FINAL
ARRAY JOIN verdicts AS verdict;

CREATE OR REPLACE VIEW feedback AS
SELECT * REPLACE (transform(kind, [0, 1, 2, 3, 4], ['UNSPECIFIED', 'RATING', 'THUMBS', 'CORRECTION', 'LABEL'], toString(kind)) AS kind)
FROM feedback_raw FINAL;

CREATE OR REPLACE VIEW evaluations AS
SELECT *
FROM evaluations_raw FINAL;

-- A tombstone, which ends the key of a resolved alert, holds no alert.
CREATE OR REPLACE VIEW drift_alerts AS
SELECT
    * EXCEPT (alert),
    alert.alert_id AS alert_id,
    alert.alert_key AS alert_key,
    transform(alert.state, [0, 1, 2, 3], ['UNSPECIFIED', 'FIRING', 'ACKNOWLEDGED', 'RESOLVED'], toString(alert.state)) AS state,
    transform(alert.severity, [0, 1, 2, 3], ['UNSPECIFIED', 'INFO', 'WARNING', 'CRITICAL'], toString(alert.severity)) AS severity,
    alert.signal AS signal,
    alert.segment AS segment,
    alert.test AS test,
    alert.statistic AS statistic,
    alert.threshold AS threshold,
    alert.effect AS effect,
    alert.example_request_ids AS example_request_ids,
    alert.cursor AS cursor,
    fromUnixTimestamp64Micro(alert.fire_time.seconds * 1000000 + intDiv(alert.fire_time.nanos, 1000), 'UTC') AS fire_time,
    fromUnixTimestamp64Micro(alert.update_time.seconds * 1000000 + intDiv(alert.update_time.nanos, 1000), 'UTC') AS update_time,
    alert.acknowledged_by AS acknowledged_by,
    alert.acknowledge_note AS acknowledge_note,
    fromUnixTimestamp64Micro(alert.reference_window.start_time.seconds * 1000000 + intDiv(alert.reference_window.start_time.nanos, 1000), 'UTC') AS reference_start_time,
    fromUnixTimestamp64Micro(alert.reference_window.end_time.seconds * 1000000 + intDiv(alert.reference_window.end_time.nanos, 1000), 'UTC') AS reference_end_time,
    alert.reference_window.count AS reference_count,
    alert.reference_window.mean AS reference_mean,
    alert.reference_window.standard_deviation AS reference_deviation,
    fromUnixTimestamp64Micro(alert.current_window.start_time.seconds * 1000000 + intDiv(alert.current_window.start_time.nanos, 1000), 'UTC') AS current_start_time,
    fromUnixTimestamp64Micro(alert.current_window.end_time.seconds * 1000000 + intDiv(alert.current_window.end_time.nanos, 1000), 'UTC') AS current_end_time,
    alert.current_window.count AS current_count,
    alert.current_window.mean AS current_mean,
    alert.current_window.standard_deviation AS current_deviation,
    fromUnixTimestamp64Micro(alert.latest_window.start_time.seconds * 1000000 + intDiv(alert.latest_window.start_time.nanos, 1000), 'UTC') AS latest_start_time,
    fromUnixTimestamp64Micro(alert.latest_window.end_time.seconds * 1000000 + intDiv(alert.latest_window.end_time.nanos, 1000), 'UTC') AS latest_end_time,
    alert.latest_window.count AS latest_count,
    alert.latest_window.mean AS latest_mean,
    alert.latest_window.standard_deviation AS latest_deviation
FROM drift_alerts_raw FINAL
WHERE alert.alert_id != '';

CREATE OR REPLACE VIEW documents AS
SELECT * REPLACE (transform(outcome, [0, 1, 2, 3, 4, 5], ['UNSPECIFIED', 'CREATED', 'UPDATED', 'UNCHANGED', 'REFUSED', 'DELETED'], toString(outcome)) AS outcome)
FROM documents_raw FINAL;

CREATE OR REPLACE VIEW producer_reports AS
SELECT *
FROM producer_reports_raw FINAL;

-- Computed from the collapsed rows at each question, so that no duplicate can inflate it.
CREATE OR REPLACE VIEW usage_by_minute AS
SELECT
    tenant,
    toStartOfMinute(complete_time) AS minute,
    project,
    route,
    model,
    prompt.prompt_id AS prompt_id,
    prompt.version AS prompt_version,
    count() AS requests,
    countIf(outcome IN (4, 5, 6)) AS errors,
    countIf(outcome = 2) AS blocked,
    sum(usage.input_tokens) AS input_tokens,
    sum(usage.output_tokens) AS output_tokens,
    sum(usage.cached_tokens) AS cached_tokens,
    sum(cost_microusd) AS cost_microusd,
    quantile(0.5)(duration_us) AS latency_p50_us,
    quantile(0.95)(duration_us) AS latency_p95_us
FROM interactions_raw FINAL
GROUP BY tenant, minute, project, route, model, prompt_id, prompt_version;
