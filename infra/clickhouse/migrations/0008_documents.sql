-- Retractions and what the quality checks say of documents; which answers a document went into.

ALTER TABLE documents_raw
    ADD COLUMN IF NOT EXISTS flags Array(String) AFTER duration_us,
    ADD COLUMN IF NOT EXISTS duplicate_of String CODEC(ZSTD(1)) AFTER flags,
    ADD COLUMN IF NOT EXISTS language LowCardinality(String) AFTER duplicate_of,
    ADD COLUMN IF NOT EXISTS media_type LowCardinality(String) AFTER language,
    ADD COLUMN IF NOT EXISTS retract_reason String CODEC(ZSTD(1)) AFTER media_type;

CREATE OR REPLACE VIEW documents AS
SELECT * REPLACE (transform(outcome, [0, 1, 2, 3, 4, 5, 6], ['UNSPECIFIED', 'CREATED', 'UPDATED', 'UNCHANGED', 'REFUSED', 'DELETED', 'RETRACTED'], toString(outcome)) AS outcome)
FROM documents_raw FINAL;

-- Spare a question about one document the granules in which no answer has it. Rows from before are indexed too.
ALTER TABLE interactions_raw ADD INDEX IF NOT EXISTS cited_documents_index citations.document_id TYPE bloom_filter GRANULARITY 1;

ALTER TABLE interactions_raw ADD INDEX IF NOT EXISTS found_documents_index chunks.document_id TYPE bloom_filter GRANULARITY 1;

ALTER TABLE interactions_raw MATERIALIZE INDEX cited_documents_index;

ALTER TABLE interactions_raw MATERIALIZE INDEX found_documents_index;
