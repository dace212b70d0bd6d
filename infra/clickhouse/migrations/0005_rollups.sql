-- Minutes of usage and of scores, counted from collapsed rows.
--
-- Nothing here is incremented. An insert only leaves a mark on the minutes it touched (rollup_touches); analytics then
-- counts each touched minute afresh from the collapsed rows (services/analytics/rollups.py) and writes the result as a
-- newer version of the whole minute. A copy of an event, by whatever way it came, therefore changes no count.

-- The newest touch of each minute. A touch may be seen before the rows that it speaks of, so it is settled only once
-- no insert that began by then can still be running.
CREATE TABLE IF NOT EXISTS rollup_touches
(
    rollup LowCardinality(String),
    minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    touch_time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(touch_time)
ORDER BY (rollup, minute)
TTL toDateTime(touch_time) + INTERVAL 400 DAY;

-- Up to which touch a minute's figures are final.
CREATE TABLE IF NOT EXISTS rollup_settlements
(
    rollup LowCardinality(String),
    minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    settled_through DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(settled_through)
ORDER BY (rollup, minute)
TTL toDateTime(settled_through) + INTERVAL 400 DAY;

CREATE MATERIALIZED VIEW IF NOT EXISTS interactions_to_touches TO rollup_touches AS
SELECT 'usage' AS rollup, toStartOfMinute(complete_time) AS minute, now64(3, 'UTC') AS touch_time
FROM interactions_raw
GROUP BY minute;

CREATE MATERIALIZED VIEW IF NOT EXISTS evaluations_to_touches TO rollup_touches AS
SELECT 'scores' AS rollup, toStartOfMinute(interaction_time) AS minute, now64(3, 'UTC') AS touch_time
FROM evaluations_raw
GROUP BY minute;

-- What was stored before this migration is counted as well.
INSERT INTO rollup_touches (rollup, minute, touch_time)
SELECT 'usage', toStartOfMinute(complete_time) AS minute, now64(3, 'UTC')
FROM interactions_raw
GROUP BY minute;

INSERT INTO rollup_touches (rollup, minute, touch_time)
SELECT 'scores', toStartOfMinute(interaction_time) AS minute, now64(3, 'UTC')
FROM evaluations_raw
GROUP BY minute;

-- One version of a minute for each counting; the newest counts. A group that was there and is no more has 0 requests.
CREATE TABLE IF NOT EXISTS usage_minutes
(
    tenant LowCardinality(String),
    minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    project LowCardinality(String),
    route LowCardinality(String),
    model LowCardinality(String),
    prompt_id LowCardinality(String),
    prompt_version LowCardinality(String),
    version DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    requests UInt64 CODEC(T64, ZSTD(1)),
    errors UInt64 CODEC(T64, ZSTD(1)),
    blocked UInt64 CODEC(T64, ZSTD(1)),
    refused UInt64 CODEC(T64, ZSTD(1)),
    input_tokens Int64 CODEC(T64, ZSTD(1)),
    output_tokens Int64 CODEC(T64, ZSTD(1)),
    cached_tokens Int64 CODEC(T64, ZSTD(1)),
    cost_microusd Int64 CODEC(T64, ZSTD(1)),
    latency_us AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Int64) CODEC(ZSTD(1)),
    time_to_first_token_us AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Int64) CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(minute)
ORDER BY (tenant, minute, project, route, model, prompt_id, prompt_version)
TTL minute + INTERVAL 1100 DAY;

CREATE TABLE IF NOT EXISTS score_minutes
(
    tenant LowCardinality(String),
    minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    route LowCardinality(String),
    model LowCardinality(String),
    prompt_version LowCardinality(String),
    metric LowCardinality(String),
    metric_version LowCardinality(String),
    version DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    scores UInt64 CODEC(T64, ZSTD(1)),
    unmeasured UInt64 CODEC(T64, ZSTD(1)),
    value_sum Float64 CODEC(ZSTD(1)),
    weight_sum Float64 CODEC(ZSTD(1)),
    weighted_value_sum Float64 CODEC(ZSTD(1)),
    value_quantiles AggregateFunction(quantilesTDigest(0.05, 0.5, 0.95), Float64) CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(minute)
ORDER BY (tenant, minute, route, model, prompt_version, metric, metric_version)
TTL minute + INTERVAL 1100 DAY;

-- The finished figures of each minute; to put minutes together, merge the states of the tables above.
CREATE OR REPLACE VIEW usage_by_minute AS
SELECT
    tenant, minute, project, route, model, prompt_id, prompt_version,
    requests, errors, blocked, refused, input_tokens, output_tokens, cached_tokens, cost_microusd,
    finalizeAggregation(latency_us) AS latency_quantiles,
    finalizeAggregation(time_to_first_token_us) AS first_token_quantiles,
    latency_quantiles[1] AS latency_p50_us,
    latency_quantiles[2] AS latency_p95_us,
    latency_quantiles[3] AS latency_p99_us,
    first_token_quantiles[1] AS time_to_first_token_p50_us,
    first_token_quantiles[2] AS time_to_first_token_p95_us,
    first_token_quantiles[3] AS time_to_first_token_p99_us
FROM usage_minutes FINAL
WHERE requests > 0;

-- `mean` weighs each score by the inverse of the probability with which its answer was chosen to be scored
-- (Horvitz and Thompson, 1952, in the ratio form of Hájek), so that sampled answers stand for those left out.
CREATE OR REPLACE VIEW scores_by_minute AS
SELECT
    tenant, minute, route, model, prompt_version, metric, metric_version, scores, unmeasured,
    weighted_value_sum / weight_sum AS mean,
    finalizeAggregation(value_quantiles) AS quantiles,
    quantiles[1] AS p05,
    quantiles[2] AS p50,
    quantiles[3] AS p95
FROM score_minutes FINAL
WHERE scores + unmeasured > 0;
