"""Metrics of events published and consumed. Set by the event-bus adapters; labels are topics and groups."""

from servicekit.telemetry.metrics import counter, gauge, histogram

# Handed to the bus; those not acknowledged are the difference to ACKNOWLEDGED.
PUBLISHED = counter("events_published", meaning="Events handed to the bus.", labels=("topic",))
# Acknowledged by the broker, late acknowledgements included.
ACKNOWLEDGED = counter("events_acknowledged", meaning="Events the bus has acknowledged.", labels=("topic",))
# From the call of publish to its return: acknowledged, spooled or failed.
PUBLISH_SECONDS = histogram("events_publish", meaning="Time from publish until it is safe.", labels=("topic",))
# On this process's disk and not yet acknowledged: what was spooled is the sum of this and of DRAINED.
SPOOL_EVENTS = gauge("events_spool", meaning="Events on disk that Kafka has not acknowledged.", unit="events")
SPOOL_BYTES = gauge("events_spool_size", meaning="Size of the events on disk.", unit="bytes")
# Written to disk because Kafka did not acknowledge in time or was away.
SPOOLED = counter("events_spooled", meaning="Events written to disk.", labels=("topic",))
# Acknowledged by Kafka after they were spooled, those that an earlier process left included.
DRAINED = counter("events_drained", meaning="Events taken from disk to Kafka.", labels=("topic",))
# The spool was full, or the disk failed: those publishes waited for Kafka itself. `cause` is full or disk.
SPOOL_REFUSALS = counter("events_spool_refused", meaning="Events that the spool could not take.", labels=("cause",))
# Handled with success.
CONSUMED = counter("events_consumed", meaning="Events handled.", labels=("topic", "group"))
# Put on the dead-letter topic, or dropped where a subscription keeps none.
REJECTED = counter("events_rejected", meaning="Events that can never succeed.", labels=("topic", "group", "stage"))
# A consumer that stopped because too much of its topic became dead letters; it goes on after a restart.
STOPPED = gauge("events_stopped", meaning="1 if dead letters stopped this consumer.", labels=("topic", "group"))
# Attempts that failed and will be repeated.
RETRIES = counter("events_retried", meaning="Failed attempts to handle an event.", labels=("topic", "group"))
# Records between the last one handled and the newest, over the partitions of this consumer.
LAG = gauge("events_lag", meaning="Records not yet handled by this consumer.", labels=("topic", "group"))
