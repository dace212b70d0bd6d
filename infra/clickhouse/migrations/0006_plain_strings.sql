-- Strings within lists become plain ones. A dictionary for each of them cost more than half of every insert and merge,
-- and saved little: the codec finds the same repetitions.

ALTER TABLE interactions_raw
    MODIFY COLUMN query String CODEC(ZSTD(1)),
    MODIFY COLUMN answer String CODEC(ZSTD(1)),
    MODIFY COLUMN prompt Tuple(prompt_id String, version String, hash String, few_shot_set String),
    MODIFY COLUMN attempts Array(Tuple(
        number Int32, model_alias String, model String, revision String, engine String, adapter String,
        usage Tuple(input_tokens Int64, output_tokens Int64, cached_tokens Int64, estimated Bool),
        cost_microusd Int64, price_version String, duration_us Int64, time_to_first_token_us Int64,
        finish_reason Int32, error_reason String)),
    MODIFY COLUMN citations Array(Tuple(
        marker String, answer_span Tuple(start Int32, end Int32), chunk_id String,
        document_id String, revision Int64, content_hash String, source_span Tuple(start Int32, end Int32),
        title String, source_uri String)) CODEC(ZSTD(1)),
    MODIFY COLUMN timings Array(Tuple(stage String, start_us Int64, duration_us Int64)),
    MODIFY COLUMN verdicts Array(Tuple(
        surface Int32, detector String, detector_version String, action Int32, score Float64, rule String,
        span Tuple(start Int32, end Int32), message String, policy_version String, chunk_id String, shadow Bool)),
    MODIFY COLUMN degradations Array(Tuple(rung String, cause String)),
    MODIFY COLUMN labels Map(String, String);

ALTER TABLE guardrail_decisions_raw
    MODIFY COLUMN verdicts Array(Tuple(
        surface Int32, detector String, detector_version String, action Int32, score Float64, rule String,
        span Tuple(start Int32, end Int32), message String, policy_version String, chunk_id String, shadow Bool));

-- A view keeps the types that its columns had when it was made.
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
