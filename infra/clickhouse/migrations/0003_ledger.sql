-- Which sequences of which producer are stored, at which offsets: completeness is read from here.
-- A sequence at two offsets is a duplicate on the topic; an insert repeated by the sink collapses.
CREATE TABLE IF NOT EXISTS event_ledger
(
    topic LowCardinality(String),
    producer LowCardinality(String),
    source LowCardinality(String),
    partition Int32 CODEC(T64, ZSTD(1)),
    sequence Int64 CODEC(Delta, ZSTD(1)),
    offset Int64 CODEC(Delta, ZSTD(1)),
    stored_time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (topic, producer, partition, sequence, offset)
TTL toDateTime(stored_time) + INTERVAL 400 DAY;

CREATE MATERIALIZED VIEW IF NOT EXISTS interactions_to_ledger TO event_ledger AS
SELECT
    kafka_topic AS topic, event_producer AS producer, event_source AS source, kafka_partition AS partition,
    event_sequence AS sequence, kafka_offset AS offset, stored_time
FROM interactions_raw;

CREATE MATERIALIZED VIEW IF NOT EXISTS guardrail_decisions_to_ledger TO event_ledger AS
SELECT
    kafka_topic AS topic, event_producer AS producer, event_source AS source, kafka_partition AS partition,
    event_sequence AS sequence, kafka_offset AS offset, stored_time
FROM guardrail_decisions_raw;

CREATE MATERIALIZED VIEW IF NOT EXISTS feedback_to_ledger TO event_ledger AS
SELECT
    kafka_topic AS topic, event_producer AS producer, event_source AS source, kafka_partition AS partition,
    event_sequence AS sequence, kafka_offset AS offset, stored_time
FROM feedback_raw;

CREATE MATERIALIZED VIEW IF NOT EXISTS evaluations_to_ledger TO event_ledger AS
SELECT
    kafka_topic AS topic, event_producer AS producer, event_source AS source, kafka_partition AS partition,
    event_sequence AS sequence, kafka_offset AS offset, stored_time
FROM evaluations_raw;

CREATE MATERIALIZED VIEW IF NOT EXISTS drift_alerts_to_ledger TO event_ledger AS
SELECT
    kafka_topic AS topic, event_producer AS producer, event_source AS source, kafka_partition AS partition,
    event_sequence AS sequence, kafka_offset AS offset, stored_time
FROM drift_alerts_raw;

CREATE MATERIALIZED VIEW IF NOT EXISTS documents_to_ledger TO event_ledger AS
SELECT
    kafka_topic AS topic, event_producer AS producer, event_source AS source, kafka_partition AS partition,
    event_sequence AS sequence, kafka_offset AS offset, stored_time
FROM documents_raw;

CREATE MATERIALIZED VIEW IF NOT EXISTS producer_reports_to_ledger TO event_ledger AS
SELECT
    kafka_topic AS topic, event_producer AS producer, event_source AS source, kafka_partition AS partition,
    event_sequence AS sequence, kafka_offset AS offset, stored_time
FROM producer_reports_raw;

-- Records that were lost on the topic before they were read: evicted by the embedded broker, or expired by
-- retention. Whoever notices writes a row; rows that overlap are counted once.
CREATE TABLE IF NOT EXISTS stream_gaps
(
    topic LowCardinality(String),
    partition Int32,
    first_offset Int64,
    last_offset Int64,
    notice_time DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    cause LowCardinality(String) DEFAULT 'evicted',
    reporter LowCardinality(String)
)
ENGINE = ReplacingMergeTree
ORDER BY (topic, partition, first_offset, last_offset, reporter)
TTL toDateTime(notice_time) + INTERVAL 400 DAY;
