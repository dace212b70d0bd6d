"""Metrics of events published and consumed. Set by the event-bus adapters; labels are topics and groups."""

from servicekit.telemetry.metrics import counter, gauge, histogram

# Handed to the bus; those not acknowledged are the difference to ACKNOWLEDGED.
PUBLISHED = counter("events_published", meaning="Events handed to the bus.", labels=("topic",))
# Acknowledged by the broker, late acknowledgements included.
ACKNOWLEDGED = counter("events_acknowledged", meaning="Events the bus has acknowledged.", labels=("topic",))
# From the call of publish to the acknowledgement.
PUBLISH_SECONDS = histogram("events_publish", meaning="Time from publish to acknowledgement.", labels=("topic",))
# Handled with success.
CONSUMED = counter("events_consumed", meaning="Events handled.", labels=("topic", "group"))
# Put on the dead-letter topic, or dropped where a subscription keeps none.
REJECTED = counter("events_rejected", meaning="Events that can never succeed.", labels=("topic", "group", "stage"))
# Attempts that failed and will be repeated.
RETRIES = counter("events_retried", meaning="Failed attempts to handle an event.", labels=("topic", "group"))
# Records between the last one handled and the newest, over the partitions of this consumer.
LAG = gauge("events_lag", meaning="Records not yet handled by this consumer.", labels=("topic", "group"))
