-- How an answer was generated: why each replica was chosen and how long it was waited for, the schema asked for, how
-- probable the answer's tokens were, and markers that name no chunk.

ALTER TABLE interactions_raw
    MODIFY COLUMN attempts Array(Tuple(
        number Int32, model_alias String, model String, revision String, engine String, adapter String,
        usage Tuple(input_tokens Int64, output_tokens Int64, cached_tokens Int64, estimated Bool),
        cost_microusd Int64, price_version String, duration_us Int64, time_to_first_token_us Int64,
        finish_reason Int32, error_reason String, choice String, queue_us Int64)),
    ADD COLUMN IF NOT EXISTS output_schema_hash LowCardinality(String) AFTER channel,
    ADD COLUMN IF NOT EXISTS mean_logprob Nullable(Float64) AFTER output_schema_hash,
    ADD COLUMN IF NOT EXISTS invalid_markers Array(String) AFTER mean_logprob;

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
