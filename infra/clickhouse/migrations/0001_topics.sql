-- One table for each topic, holding what its producers published, as it stood on the topic.
--
-- The sink writes the record's own protobuf bytes; the engine takes the columns from them, so a column has the
-- name of its field, an enum is its number, and a field without a column is skipped. Times come in as the two
-- halves of a Timestamp. What the sink appends to the bytes are the columns from kafka_topic to event_id; the
-- identifier passes through a LowCardinality column because that takes the last of two values, so that a
-- producer cannot blank it by sending the field itself. A message that is cut off swallows the topic, which is
-- appended first: the default of event_id throws then (the embedded engine checks no constraints here).
--
-- Times to live count from stored_time, so that an old event that is replayed, or one without a time, is kept.
--
-- An event may be stored more than once. The order of each table ends in (event_source, event_id) and holds only
-- columns that a repeated publication of the event cannot change; read through the views of 0002, which collapse.

-- binnacle.interaction.completed.v1: one accepted request, whatever its end.
CREATE TABLE IF NOT EXISTS interactions_raw
(
    request_id String CODEC(ZSTD(1)),
    accept_time_seconds Int64 EPHEMERAL,
    accept_time_nanos Int32 EPHEMERAL,
    accept_time DateTime64(6, 'UTC')
        DEFAULT fromUnixTimestamp64Micro(accept_time_seconds * 1000000 + intDiv(accept_time_nanos, 1000), 'UTC') CODEC(Delta, ZSTD(1)),
    complete_time_seconds Int64 EPHEMERAL,
    complete_time_nanos Int32 EPHEMERAL,
    complete_time DateTime64(6, 'UTC')
        DEFAULT fromUnixTimestamp64Micro(complete_time_seconds * 1000000 + intDiv(complete_time_nanos, 1000), 'UTC') CODEC(Delta, ZSTD(1)),
    project LowCardinality(String),
    end_user_id String CODEC(ZSTD(1)),
    conversation_id String CODEC(ZSTD(1)),
    idempotency_key String CODEC(ZSTD(1)),
    outcome Int32,
    query String CODEC(ZSTD(3)) TTL toDateTime(stored_time) + INTERVAL 400 DAY,
    answer String CODEC(ZSTD(3)) TTL toDateTime(stored_time) + INTERVAL 400 DAY,
    release LowCardinality(String),
    route LowCardinality(String),
    variant LowCardinality(String),
    variant_probability Float64,
    sticky_key String CODEC(ZSTD(1)),
    prompt Tuple(
        prompt_id LowCardinality(String), version LowCardinality(String), hash LowCardinality(String),
        few_shot_set LowCardinality(String)),
    policy_version LowCardinality(String),
    model LowCardinality(String),
    attempts Array(Tuple(
        number Int32, model_alias LowCardinality(String), model LowCardinality(String),
        revision LowCardinality(String), engine LowCardinality(String), adapter LowCardinality(String),
        usage Tuple(input_tokens Int64, output_tokens Int64, cached_tokens Int64, estimated Bool),
        cost_microusd Int64, price_version LowCardinality(String), duration_us Int64, time_to_first_token_us Int64,
        finish_reason Int32, error_reason LowCardinality(String))),
    sampling Tuple(
        temperature Nullable(Float64), top_p Nullable(Float64), top_k Nullable(Int32),
        max_output_tokens Nullable(Int32), stop Array(String), seed Nullable(Int64),
        frequency_penalty Nullable(Float64), presence_penalty Nullable(Float64)),
    chunks Array(Tuple(
        chunk_id String, document_id String, revision Int64, content_hash String, rank Int32, score Float64,
        used Bool)) CODEC(ZSTD(1)),
    citations Array(Tuple(
        marker LowCardinality(String), answer_span Tuple(start Int32, end Int32), chunk_id String,
        document_id String, revision Int64, content_hash String, source_span Tuple(start Int32, end Int32),
        title String, source_uri String)) CODEC(ZSTD(1)),
    embedding_model LowCardinality(String),
    query_vector_fp16 String CODEC(NONE) TTL toDateTime(stored_time) + INTERVAL 400 DAY,
    corpus_version Int64,
    usage Tuple(input_tokens Int64, output_tokens Int64, cached_tokens Int64, estimated Bool),
    cost_microusd Int64,
    price_version LowCardinality(String),
    deadline_granted_us Int64,
    duration_us Int64,
    time_to_first_token_us Int64,
    timings Array(Tuple(stage LowCardinality(String), start_us Int64, duration_us Int64)),
    verdicts Array(Tuple(
        surface Int32, detector LowCardinality(String), detector_version LowCardinality(String), action Int32,
        score Float64, rule LowCardinality(String), span Tuple(start Int32, end Int32), message String,
        policy_version LowCardinality(String), chunk_id String, shadow Bool)),
    finish_reason Int32,
    cache_status Int32,
    cache_source_request_id String,
    cache_similarity Float64,
    degradations Array(Tuple(rung LowCardinality(String), cause LowCardinality(String))),
    budget_reservation_id String,
    shadow_of String,
    replay_of String,
    retention_class LowCardinality(String),
    training_consent Bool,
    error_reason LowCardinality(String),
    labels Map(LowCardinality(String), String),
    retracted Bool,
    channel LowCardinality(String),

    kafka_topic LowCardinality(String),
    kafka_partition Int32 CODEC(T64, ZSTD(1)),
    kafka_offset Int64 CODEC(Delta, ZSTD(1)),
    tenant LowCardinality(String),
    event_source LowCardinality(String),
    event_producer LowCardinality(String),
    event_sequence Int64 CODEC(Delta, ZSTD(1)),
    event_time_ms Int64 EPHEMERAL,
    event_time DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(event_time_ms, 'UTC') CODEC(Delta, ZSTD(1)),
    raw_event_id LowCardinality(String) EPHEMERAL,
    event_id String DEFAULT if(
        throwIf(empty(kafka_topic) OR empty(raw_event_id), 'the envelope is cut off'), '', raw_event_id)
        CODEC(ZSTD(1)),
    stored_time DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    INDEX request_id_index request_id TYPE bloom_filter GRANULARITY 1,
    INDEX conversation_id_index conversation_id TYPE bloom_filter GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(complete_time)
ORDER BY (tenant, complete_time, event_source, event_id)
TTL toDateTime(stored_time) + INTERVAL 1100 DAY;

-- binnacle.guardrail.decided.v1: one check of one text. A check that the caller repeats is the same event at a later
-- decide_time, so the time is not part of its order; request ids grow with time.
CREATE TABLE IF NOT EXISTS guardrail_decisions_raw
(
    request_id String CODEC(ZSTD(1)),
    decide_time_seconds Int64 EPHEMERAL,
    decide_time_nanos Int32 EPHEMERAL,
    decide_time DateTime64(6, 'UTC')
        DEFAULT fromUnixTimestamp64Micro(decide_time_seconds * 1000000 + intDiv(decide_time_nanos, 1000), 'UTC') CODEC(Delta, ZSTD(1)),
    surface Int32,
    action Int32,
    verdicts Array(Tuple(
        surface Int32, detector LowCardinality(String), detector_version LowCardinality(String), action Int32,
        score Float64, rule LowCardinality(String), span Tuple(start Int32, end Int32), message String,
        policy_version LowCardinality(String), chunk_id String, shadow Bool)),
    policy_version LowCardinality(String),
    text_chars Int64,
    text_count Int32,
    duration_us Int64,
    route LowCardinality(String),
    piece Int32,

    kafka_topic LowCardinality(String),
    kafka_partition Int32 CODEC(T64, ZSTD(1)),
    kafka_offset Int64 CODEC(Delta, ZSTD(1)),
    tenant LowCardinality(String),
    event_source LowCardinality(String),
    event_producer LowCardinality(String),
    event_sequence Int64 CODEC(Delta, ZSTD(1)),
    event_time_ms Int64 EPHEMERAL,
    event_time DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(event_time_ms, 'UTC') CODEC(Delta, ZSTD(1)),
    raw_event_id LowCardinality(String) EPHEMERAL,
    event_id String DEFAULT if(
        throwIf(empty(kafka_topic) OR empty(raw_event_id), 'the envelope is cut off'), '', raw_event_id)
        CODEC(ZSTD(1)),
    stored_time DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    INDEX decide_time_index decide_time TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree
ORDER BY (tenant, request_id, event_source, event_id)
TTL toDateTime(stored_time) + INTERVAL 1100 DAY;

-- binnacle.feedback.recorded.v1: what somebody thinks of an answer. A repeated submission has a later time, so
-- the time is not part of its order; request ids grow with time.
CREATE TABLE IF NOT EXISTS feedback_raw
(
    feedback_id String CODEC(ZSTD(1)),
    request_id String CODEC(ZSTD(1)),
    record_time_seconds Int64 EPHEMERAL,
    record_time_nanos Int32 EPHEMERAL,
    record_time DateTime64(6, 'UTC')
        DEFAULT fromUnixTimestamp64Micro(record_time_seconds * 1000000 + intDiv(record_time_nanos, 1000), 'UTC') CODEC(Delta, ZSTD(1)),
    kind Int32,
    rating Int32,
    thumbs_up Bool,
    correction String CODEC(ZSTD(3)),
    label LowCardinality(String),
    author String CODEC(ZSTD(1)),
    supersedes String CODEC(ZSTD(1)),
    comment String CODEC(ZSTD(3)),

    kafka_topic LowCardinality(String),
    kafka_partition Int32 CODEC(T64, ZSTD(1)),
    kafka_offset Int64 CODEC(Delta, ZSTD(1)),
    tenant LowCardinality(String),
    event_source LowCardinality(String),
    event_producer LowCardinality(String),
    event_sequence Int64 CODEC(Delta, ZSTD(1)),
    event_time_ms Int64 EPHEMERAL,
    event_time DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(event_time_ms, 'UTC') CODEC(Delta, ZSTD(1)),
    raw_event_id LowCardinality(String) EPHEMERAL,
    event_id String DEFAULT if(
        throwIf(empty(kafka_topic) OR empty(raw_event_id), 'the envelope is cut off'), '', raw_event_id)
        CODEC(ZSTD(1)),
    stored_time DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (tenant, request_id, event_source, event_id)
TTL toDateTime(stored_time) + INTERVAL 1100 DAY;

-- binnacle.evaluation.scored.v1: one metric of one answer. Scoring again after a crash is the same event at a
-- later score_time, so the order goes by the interaction's time.
CREATE TABLE IF NOT EXISTS evaluations_raw
(
    evaluation_id String CODEC(ZSTD(1)),
    request_id String CODEC(ZSTD(1)),
    score_time_seconds Int64 EPHEMERAL,
    score_time_nanos Int32 EPHEMERAL,
    score_time DateTime64(6, 'UTC')
        DEFAULT fromUnixTimestamp64Micro(score_time_seconds * 1000000 + intDiv(score_time_nanos, 1000), 'UTC') CODEC(Delta, ZSTD(1)),
    metric LowCardinality(String),
    metric_version LowCardinality(String),
    value Nullable(Float64),
    unmeasured_reason LowCardinality(String),
    inclusion_probability Float64,
    judge_id LowCardinality(String),
    run_id LowCardinality(String),
    route LowCardinality(String),
    model LowCardinality(String),
    prompt_version LowCardinality(String),
    interaction_time_seconds Int64 EPHEMERAL,
    interaction_time_nanos Int32 EPHEMERAL,
    interaction_time DateTime64(6, 'UTC')
        DEFAULT fromUnixTimestamp64Micro(interaction_time_seconds * 1000000 + intDiv(interaction_time_nanos, 1000), 'UTC') CODEC(Delta, ZSTD(1)),
    feedback_id String CODEC(ZSTD(1)),

    kafka_topic LowCardinality(String),
    kafka_partition Int32 CODEC(T64, ZSTD(1)),
    kafka_offset Int64 CODEC(Delta, ZSTD(1)),
    tenant LowCardinality(String),
    event_source LowCardinality(String),
    event_producer LowCardinality(String),
    event_sequence Int64 CODEC(Delta, ZSTD(1)),
    event_time_ms Int64 EPHEMERAL,
    event_time DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(event_time_ms, 'UTC') CODEC(Delta, ZSTD(1)),
    raw_event_id LowCardinality(String) EPHEMERAL,
    event_id String DEFAULT if(
        throwIf(empty(kafka_topic) OR empty(raw_event_id), 'the envelope is cut off'), '', raw_event_id)
        CODEC(ZSTD(1)),
    stored_time DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    INDEX request_id_index request_id TYPE bloom_filter GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(interaction_time)
ORDER BY (tenant, interaction_time, metric, event_source, event_id)
TTL toDateTime(stored_time) + INTERVAL 1100 DAY;

-- binnacle.drift.alerted.v1: one change of one alert.
CREATE TABLE IF NOT EXISTS drift_alerts_raw
(
    alert Tuple(
        alert_id String, alert_key String, state Int32, severity Int32, signal LowCardinality(String),
        segment LowCardinality(String),
        reference_window Tuple(
            start_time Tuple(seconds Int64, nanos Int32), end_time Tuple(seconds Int64, nanos Int32),
            count Int64, mean Float64, standard_deviation Float64),
        current_window Tuple(
            start_time Tuple(seconds Int64, nanos Int32), end_time Tuple(seconds Int64, nanos Int32),
            count Int64, mean Float64, standard_deviation Float64),
        test LowCardinality(String), statistic Float64, threshold Float64, effect Float64,
        example_request_ids Array(String), cursor Int64, fire_time Tuple(seconds Int64, nanos Int32),
        update_time Tuple(seconds Int64, nanos Int32), acknowledged_by String, acknowledge_note String,
        latest_window Tuple(
            start_time Tuple(seconds Int64, nanos Int32), end_time Tuple(seconds Int64, nanos Int32),
            count Int64, mean Float64, standard_deviation Float64)),
    alert_key String MATERIALIZED alert.alert_key CODEC(ZSTD(1)),
    change_time_seconds Int64 EPHEMERAL,
    change_time_nanos Int32 EPHEMERAL,
    change_time DateTime64(6, 'UTC')
        DEFAULT fromUnixTimestamp64Micro(change_time_seconds * 1000000 + intDiv(change_time_nanos, 1000), 'UTC') CODEC(Delta, ZSTD(1)),

    kafka_topic LowCardinality(String),
    kafka_partition Int32 CODEC(T64, ZSTD(1)),
    kafka_offset Int64 CODEC(Delta, ZSTD(1)),
    tenant LowCardinality(String),
    event_source LowCardinality(String),
    event_producer LowCardinality(String),
    event_sequence Int64 CODEC(Delta, ZSTD(1)),
    event_time_ms Int64 EPHEMERAL,
    event_time DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(event_time_ms, 'UTC') CODEC(Delta, ZSTD(1)),
    raw_event_id LowCardinality(String) EPHEMERAL,
    event_id String DEFAULT if(
        throwIf(empty(kafka_topic) OR empty(raw_event_id), 'the envelope is cut off'), '', raw_event_id)
        CODEC(ZSTD(1)),
    stored_time DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (tenant, alert_key, event_source, event_id);

-- binnacle.document.indexed.v1: what became of a document.
CREATE TABLE IF NOT EXISTS documents_raw
(
    document_id String CODEC(ZSTD(1)),
    index_time_seconds Int64 EPHEMERAL,
    index_time_nanos Int32 EPHEMERAL,
    index_time DateTime64(6, 'UTC')
        DEFAULT fromUnixTimestamp64Micro(index_time_seconds * 1000000 + intDiv(index_time_nanos, 1000), 'UTC') CODEC(Delta, ZSTD(1)),
    outcome Int32,
    revision Int64,
    content_hash String CODEC(ZSTD(1)),
    chunk_count Int32,
    corpus_version Int64,
    embedding_model LowCardinality(String),
    operation_id String CODEC(ZSTD(1)),
    error_reason LowCardinality(String),
    source_uri String CODEC(ZSTD(1)),
    content_bytes Int64,
    duration_us Int64,

    kafka_topic LowCardinality(String),
    kafka_partition Int32 CODEC(T64, ZSTD(1)),
    kafka_offset Int64 CODEC(Delta, ZSTD(1)),
    tenant LowCardinality(String),
    event_source LowCardinality(String),
    event_producer LowCardinality(String),
    event_sequence Int64 CODEC(Delta, ZSTD(1)),
    event_time_ms Int64 EPHEMERAL,
    event_time DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(event_time_ms, 'UTC') CODEC(Delta, ZSTD(1)),
    raw_event_id LowCardinality(String) EPHEMERAL,
    event_id String DEFAULT if(
        throwIf(empty(kafka_topic) OR empty(raw_event_id), 'the envelope is cut off'), '', raw_event_id)
        CODEC(ZSTD(1)),
    stored_time DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (tenant, document_id, event_source, event_id);

-- binnacle.producer.reported.v1: how far a producer's events are safe, every 10 s.
CREATE TABLE IF NOT EXISTS producer_reports_raw
(
    producer LowCardinality(String),
    source LowCardinality(String),
    report_time_seconds Int64 EPHEMERAL,
    report_time_nanos Int32 EPHEMERAL,
    report_time DateTime64(6, 'UTC')
        DEFAULT fromUnixTimestamp64Micro(report_time_seconds * 1000000 + intDiv(report_time_nanos, 1000), 'UTC') CODEC(Delta, ZSTD(1)),
    start_time_seconds Int64 EPHEMERAL,
    start_time_nanos Int32 EPHEMERAL,
    start_time DateTime64(6, 'UTC')
        DEFAULT fromUnixTimestamp64Micro(start_time_seconds * 1000000 + intDiv(start_time_nanos, 1000), 'UTC') CODEC(Delta, ZSTD(1)),
    final Bool,
    marks Array(Tuple(topic LowCardinality(String), partition Int32, accepted Int64, abandoned Array(Int64))),

    kafka_topic LowCardinality(String),
    kafka_partition Int32 CODEC(T64, ZSTD(1)),
    kafka_offset Int64 CODEC(Delta, ZSTD(1)),
    tenant LowCardinality(String),
    event_source LowCardinality(String),
    event_producer LowCardinality(String),
    event_sequence Int64 CODEC(Delta, ZSTD(1)),
    event_time_ms Int64 EPHEMERAL,
    event_time DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(event_time_ms, 'UTC') CODEC(Delta, ZSTD(1)),
    raw_event_id LowCardinality(String) EPHEMERAL,
    event_id String DEFAULT if(
        throwIf(empty(kafka_topic) OR empty(raw_event_id), 'the envelope is cut off'), '', raw_event_id)
        CODEC(ZSTD(1)),
    stored_time DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(report_time)
ORDER BY (producer, report_time, event_source, event_id)
TTL toDateTime(stored_time) + INTERVAL 400 DAY;
