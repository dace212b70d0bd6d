"""Metrics of the sink; labels are topics and stages."""

from servicekit.telemetry.metrics import counter, gauge, histogram

# Rows that an insert has stored, repeated ones included.
ROWS = counter("sink_rows", meaning="Rows stored in ClickHouse.", labels=("topic",))
# Records that can never be rows.
DEAD_LETTERS = counter("sink_dead_letters", meaning="Records put on a dead-letter topic.", labels=("topic", "stage"))
# From the start of an insert to its acknowledgement, bisection and waiting for ClickHouse included.
STORE_SECONDS = histogram("sink_store", meaning="Time to store one batch.", labels=("topic",))
# Attempts to store a batch that failed and will be repeated.
RETRIES = counter("sink_retries", meaning="Failed attempts to store a batch.", labels=("topic", "reason"))
# What waits in memory; fetching pauses above the limit.
BUFFERED_BYTES = gauge("sink_buffered", meaning="Rows in memory, not stored yet.", unit="bytes")
# Records that were gone from the topic before they were read.
LOST_RECORDS = counter("sink_lost_records", meaning="Records gone before they were read.", labels=("topic",))
