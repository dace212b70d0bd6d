-- What completeness needs beyond the ledger of 0003: how far storage has come, what became a dead letter, what a
-- producer keeps on its disk, and which event a sequence carried.

-- Sequences up to `accepted` that wait in the producer's spool; empty in reports from before.
ALTER TABLE producer_reports_raw
    MODIFY COLUMN marks Array(Tuple(
        topic LowCardinality(String), partition Int32, accepted Int64, abandoned Array(Int64),
        spooled Array(Tuple(first Int64, last Int64))));

-- `event_hash` tells whether a sequence's event is still in its topic's table, although the row of that sequence
-- collapsed into the row of another publication of the same event; 0 in rows from before.
-- `insert_time` is the insert's own. A batch that the sink stores again has a new stored_time in every row; a copy
-- of a row that somebody inserts has the old one under a new insert_time, and can be told from it.
ALTER TABLE event_ledger
    ADD COLUMN IF NOT EXISTS event_hash UInt64,
    ADD COLUMN IF NOT EXISTS insert_time DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    MODIFY ORDER BY (topic, producer, partition, sequence, offset, insert_time);

ALTER TABLE event_ledger ADD INDEX IF NOT EXISTS stored_time_index stored_time TYPE minmax GRANULARITY 1;

ALTER TABLE interactions_to_ledger MODIFY QUERY
SELECT
    kafka_topic AS topic, event_producer AS producer, event_source AS source, kafka_partition AS partition,
    event_sequence AS sequence, kafka_offset AS offset, stored_time,
    cityHash64(event_source, event_id) AS event_hash, now64(6, 'UTC') AS insert_time
FROM interactions_raw;

ALTER TABLE guardrail_decisions_to_ledger MODIFY QUERY
SELECT
    kafka_topic AS topic, event_producer AS producer, event_source AS source, kafka_partition AS partition,
    event_sequence AS sequence, kafka_offset AS offset, stored_time,
    cityHash64(event_source, event_id) AS event_hash, now64(6, 'UTC') AS insert_time
FROM guardrail_decisions_raw;

ALTER TABLE feedback_to_ledger MODIFY QUERY
SELECT
    kafka_topic AS topic, event_producer AS producer, event_source AS source, kafka_partition AS partition,
    event_sequence AS sequence, kafka_offset AS offset, stored_time,
    cityHash64(event_source, event_id) AS event_hash, now64(6, 'UTC') AS insert_time
FROM feedback_raw;

ALTER TABLE evaluations_to_ledger MODIFY QUERY
SELECT
    kafka_topic AS topic, event_producer AS producer, event_source AS source, kafka_partition AS partition,
    event_sequence AS sequence, kafka_offset AS offset, stored_time,
    cityHash64(event_source, event_id) AS event_hash, now64(6, 'UTC') AS insert_time
FROM evaluations_raw;

ALTER TABLE drift_alerts_to_ledger MODIFY QUERY
SELECT
    kafka_topic AS topic, event_producer AS producer, event_source AS source, kafka_partition AS partition,
    event_sequence AS sequence, kafka_offset AS offset, stored_time,
    cityHash64(event_source, event_id) AS event_hash, now64(6, 'UTC') AS insert_time
FROM drift_alerts_raw;

ALTER TABLE documents_to_ledger MODIFY QUERY
SELECT
    kafka_topic AS topic, event_producer AS producer, event_source AS source, kafka_partition AS partition,
    event_sequence AS sequence, kafka_offset AS offset, stored_time,
    cityHash64(event_source, event_id) AS event_hash, now64(6, 'UTC') AS insert_time
FROM documents_raw;

ALTER TABLE producer_reports_to_ledger MODIFY QUERY
SELECT
    kafka_topic AS topic, event_producer AS producer, event_source AS source, kafka_partition AS partition,
    event_sequence AS sequence, kafka_offset AS offset, stored_time,
    cityHash64(event_source, event_id) AS event_hash, now64(6, 'UTC') AS insert_time
FROM producer_reports_raw;

-- Everything that the partition held at caught_up_time is stored, or a dead letter. Written by the sink about every
-- second; what was true once stays true, so the latest caught_up_time counts, whoever wrote it.
CREATE TABLE IF NOT EXISTS sink_progress
(
    topic LowCardinality(String),
    partition Int32,
    next_offset Int64,
    caught_up_time DateTime64(3, 'UTC'),
    progress_time DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(caught_up_time)
ORDER BY (topic, partition);

-- Sequences whose record the sink put aside as a dead letter. One that was replayed since is in event_ledger too.
CREATE TABLE IF NOT EXISTS sink_dead_letters
(
    topic LowCardinality(String),
    producer LowCardinality(String),
    partition Int32,
    sequence Int64 CODEC(Delta, ZSTD(1)),
    offset Int64 CODEC(Delta, ZSTD(1)),
    stage LowCardinality(String),
    bury_time DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (topic, producer, partition, sequence, offset)
TTL toDateTime(bury_time) + INTERVAL 400 DAY;
