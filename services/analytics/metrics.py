"""Metrics of the sink and of completeness; labels are topics and stages."""

from servicekit.telemetry.metrics import counter, gauge, histogram

# Rows that an insert has stored, repeated ones included.
ROWS = counter("sink_rows", meaning="Rows stored in ClickHouse.", labels=("topic",))
# Records that can never be rows.
DEAD_LETTERS = counter("sink_dead_letters", meaning="Records put on a dead-letter topic.", labels=("topic", "stage"))
# From the start of an insert to its acknowledgement, bisection and waiting for ClickHouse included.
STORE_SECONDS = histogram("sink_store", meaning="Time to store one batch.", labels=("topic",))
# Attempts to store a batch that failed and will be repeated.
RETRIES = counter("sink_retries", meaning="Failed attempts to store a batch.", labels=("topic", "reason"))
# What came by a replay topic; records there that are no dead letters are not counted.
REPLAYED = counter("sink_replayed", meaning="Dead letters that came back.", labels=("topic",))
# What waits in memory; fetching pauses above the limit.
BUFFERED_BYTES = gauge("sink_buffered", meaning="Rows in memory, not stored yet.", unit="bytes")
# Records that were gone from the topic before they were read.
LOST_RECORDS = counter("sink_lost_records", meaning="Records gone before they were read.", labels=("topic",))
# Minutes counted from collapsed rows; one that is touched again is counted again.
ROLLUP_MINUTES = counter("rollup_minutes", meaning="Minutes counted afresh.", labels=("rollup",))
# One pass over what is due; longer than its period means that figures lag.
ROLLUP_SECONDS = histogram("rollup", meaning="Time to count the minutes that are due.", labels=("rollup",))
# Minutes whose inserts may not all be over; they are counted once more before they are final.
ROLLUP_UNSETTLED = gauge("rollup_unsettled_minutes", meaning="Minutes whose figures may change.", labels=("rollup",))
# The time at which everything that the topic held is stored; it stands still while the sink lags.
CAUGHT_UP_TIME = gauge(
    "sink_caught_up_timestamp", meaning="Everything up to this Unix time is stored.", unit="seconds", labels=("topic",)
)
# Of the last hour, as `binnacle complete` counts.
MISSING = gauge("completeness_missing", meaning="Events accepted and lost.", labels=("topic",))
PENDING = gauge("completeness_pending", meaning="Events accepted and on their way.", labels=("topic",))
DEAD_LETTERED = gauge("completeness_dead_lettered", meaning="Events accepted and put aside.", labels=("topic",))
UNKNOWN_TAILS = gauge("completeness_unknown_tails", meaning="Producers that died unreported.", labels=("topic",))
CHECKED_TIME = gauge("completeness_checked_timestamp", meaning="Unix time of the last look for gaps.", unit="seconds")
