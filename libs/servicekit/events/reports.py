"""Turns a ledger into the event that tells how far it is safe.

Pure; published by event-bus adapters every `REPORT_EVERY_S` and at a clean stop.
"""

from datetime import datetime

from binnacle.events.v1.producer_reported_pb2 import ProducerReported, SequenceMark, SequenceSpan
from servicekit.domain.identity import ServiceIdentity
from servicekit.domain.ids import derive_id
from servicekit.events.ledger import SequenceLedger
from servicekit.events.topics import PRODUCER_REPORTED
from servicekit.ports.event_bus import OutgoingEvent

REPORT_EVERY_S = 10.0
# Reports belong to the system, not to a customer.
SYSTEM_TENANT = "system"


def build_report(
    identity: ServiceIdentity, ledger: SequenceLedger, *, now: datetime, final: bool
) -> OutgoingEvent | None:
    """The report at `now`, or None while nothing was published: who never wrote has nothing to be safe."""
    marks = ledger.marks()
    if not marks:
        return None
    report = ProducerReported(
        producer=identity.producer,
        source=identity.name,
        final=final,
        marks=[
            SequenceMark(
                topic=mark.topic,
                partition=mark.partition,
                accepted=mark.accepted,
                abandoned=mark.abandoned,
                spooled=[SequenceSpan(first=first, last=last) for first, last in mark.spooled],
            )
            for mark in marks
        ],
    )
    report.report_time.FromDatetime(now)
    report.start_time.FromDatetime(identity.start_time)
    return OutgoingEvent(
        topic=PRODUCER_REPORTED,
        key=identity.producer,
        id=derive_id("producer.reported", identity.producer, now.isoformat()),
        tenant=SYSTEM_TENANT,
        message=report,
    )
