"""The SQL that completeness is read with; values are bound by the server. Used by `completeness.py` alone.

A window lies between `start` and `end`; `settled` is the time from which on a report covers all that was sent before
`end`, and `tail` that from which on a producer that falls silent may still have sent something behind `start`. All
that Kafka held at `proven` is stored.
Nothing that the accounts count was stored before `since`.
"""

from collections.abc import Mapping

# Whose life touches the window, with the four reports that matter. A time of 1970 stands for none.
_LIVES = """
SELECT
    producer,
    maxIf(report_time, report_time < {start:DateTime64(6, 'UTC')}) AS opening_time,
    minIf(report_time, report_time >= {settled:DateTime64(6, 'UTC')}) AS closing_time,
    max(report_time) AS newest_time,
    maxIf(report_time, report_time <= {proven:DateTime64(6, 'UTC')}) AS proven_time,
    if(closing_time > toDateTime64(0, 6, 'UTC'), closing_time, newest_time) AS account_time,
    max(final) AS ended
FROM producer_reports_raw
GROUP BY producer
HAVING min(start_time) < {end:DateTime64(6, 'UTC')} AND newest_time >= {tail:DateTime64(6, 'UTC')}
"""
REPORTS = f"""
SELECT
    producer, any(source) AS source, report_time, any(marks) AS marks, any(start_time) AS start_time,
    any(opening_time) AS opening_time, any(closing_time) AS closing_time, any(account_time) AS account_time,
    any(newest_time) AS newest_time, any(proven_time) AS proven_time, any(ended) AS ended
FROM producer_reports_raw
INNER JOIN ({_LIVES}) AS lives USING (producer)
WHERE (producer, report_time) IN
    (SELECT producer, arrayJoin([opening_time, account_time, newest_time, proven_time]) FROM ({_LIVES}))
GROUP BY producer, report_time
"""  # noqa: S608  # both texts are constants
# Of whom something was stored in the window, and who never reported.
SILENT = """
SELECT producer, any(source) AS source, max(stored_time) AS heard
FROM event_ledger
WHERE producer != '' AND topic IN {topics:Array(String)}
    AND stored_time >= {start:DateTime64(6, 'UTC')} AND stored_time < {end:DateTime64(6, 'UTC')}
    AND producer NOT IN (SELECT producer FROM producer_reports_raw)
GROUP BY producer
"""
_PRODUCERS = f"SELECT producer FROM ({_LIVES}) UNION DISTINCT SELECT producer FROM ({SILENT})"  # noqa: S608  # as above
_ARRIVED = f"""
    topic IN {{topics:Array(String)}} AND stored_time >= {{since:DateTime64(6, 'UTC')}} AND producer IN ({_PRODUCERS})
"""
# The sequences that arrived, in runs of 65,536: from which to which, the few that lack between, and in how many rows.
# A run for each is what makes the count of millions cheap: bitmaps, instead of a sort or a hash of every sequence.
RUNS = f"""
SELECT
    topic, partition, producer, run, toInt64(min(sequence)) AS first, toInt64(max(sequence)) AS last,
    toUInt64(count()) AS rows, groupBitmapState(toUInt64(sequence)) AS bits, bitmapCardinality(bits) AS distinct,
    if(last - first + 1 = distinct, [], arrayFilter(
        number -> NOT bitmapContains(bits, toUInt64(number)), range(first, last))) AS lacking
FROM event_ledger
WHERE {_ARRIVED}
GROUP BY topic, partition, producer, intDiv(sequence, 65536) AS run
"""  # noqa: S608  # as above
STORED = f"""
SELECT topic, partition, producer, sum(rows) > sum(distinct) AS repeated, groupArray((first, last)) AS runs,
    groupArrayArray(lacking) AS lacking
FROM ({RUNS})
GROUP BY topic, partition, producer
"""  # noqa: S608  # as above
# A sequence at two offsets, or inserted twice under one stored_time, has a copy; a batch stored again by the sink none.
COPIES = f"""
SELECT
    topic, partition, producer, sequence,
    uniqExact(offset) + greatest(0, toInt64(uniqExact(offset, insert_time)) - toInt64(uniqExact(offset, stored_time)))
        AS copies
FROM event_ledger
WHERE {_ARRIVED}
    AND (topic, partition, producer, intDiv(sequence, 65536)) IN
        (SELECT topic, partition, producer, run FROM ({RUNS}) WHERE rows > distinct)
GROUP BY topic, partition, producer, sequence
HAVING copies > 1
"""  # noqa: S608  # as above
DEAD_LETTERS = f"""
SELECT topic, partition, producer, groupUniqArray(sequence) AS sequences
FROM sink_dead_letters
WHERE topic IN {{topics:Array(String)}} AND producer IN ({_PRODUCERS})
GROUP BY topic, partition, producer
"""  # noqa: S608  # as above
PROGRESS = "SELECT topic, partition, max(caught_up_time) AS caught_up FROM sink_progress GROUP BY topic, partition"
GAPS = """
SELECT topic, partition, groupArray((first_offset, last_offset)) AS ranges
FROM stream_gaps FINAL
WHERE topic IN {topics:Array(String)}
    AND notice_time >= {start:DateTime64(3, 'UTC')} AND notice_time < {end:DateTime64(3, 'UTC')}
GROUP BY topic, partition
"""


def not_under_their_number(tables: Mapping[str, str]) -> str:
    """Sequences that arrived and have no row in their topic's table now; `tables` are named by topic."""
    kept = " UNION ALL ".join(
        f"SELECT '{topic}' AS topic, event_producer AS producer, kafka_partition AS partition, "  # noqa: S608  # constants
        f"groupBitmapState(toUInt64(event_sequence)) AS bits FROM {table} "
        f"WHERE event_producer IN ({_PRODUCERS}) GROUP BY producer, partition"
        for topic, table in tables.items()
    )
    return f"""
    SELECT
        toString(arrived.topic) AS topic, toString(arrived.producer) AS producer, arrived.partition AS partition,
        bitmapToArray(bitmapAndnot(arrived.bits, kept.bits)) AS sequences
    FROM
    (
        SELECT topic, producer, partition, groupBitmapState(toUInt64(sequence)) AS bits
        FROM event_ledger
        WHERE {_ARRIVED}
        GROUP BY topic, producer, partition
    ) AS arrived
    LEFT JOIN ({kept}) AS kept
        ON arrived.topic = kept.topic AND arrived.producer = kept.producer AND arrived.partition = kept.partition
    WHERE notEmpty(sequences)
    """  # noqa: S608  # constants


def gone(topic: str, table: str, *, suspects: str) -> str:
    """Which of the suspects are gone: no row of the topic's table carries their event, whatever its number."""
    return f"""
    SELECT producer, partition, groupUniqArray(sequence) AS sequences
    FROM (SELECT cityHash64(event_source, event_id) AS event_hash FROM {table}) AS kept
    RIGHT ANTI JOIN
    (
        SELECT producer, partition, toInt64(sequence) AS sequence, event_hash
        FROM event_ledger
        INNER JOIN
        (
            SELECT producer, partition, arrayJoin(sequences) AS sequence FROM ({suspects}) WHERE topic = '{topic}'
        ) AS suspects USING (producer, partition, sequence)
        WHERE topic = '{topic}' AND event_hash != 0 AND {_ARRIVED}
    ) AS found USING (event_hash)
    GROUP BY producer, partition
    """  # noqa: S608  # constants
