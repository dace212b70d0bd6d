"""Rows ↔ messages, requests → domain types. Pure; nothing else here touches generated messages.

A stored row carries the columns of its message under the names of its fields, so the way back is generic: the
columns to select and the message to fill both follow from the descriptor.
"""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from binnacle.analytics.v1 import analytics_service_pb2 as pb
from binnacle.events.v1.evaluation_scored_pb2 import EvaluationScored
from binnacle.events.v1.feedback_recorded_pb2 import FeedbackRecorded
from binnacle.events.v1.interaction_completed_pb2 import InteractionCompleted
from binnacle.type.v1.verdict_pb2 import Verdict
from servicekit.errors import InvalidRequest
from services.analytics.affected import AffectedAnswer
from services.analytics.completeness import Completeness
from services.analytics.interactions import Columns, InteractionDossier, Row
from services.analytics.ledger import Account, ProducerState
from services.analytics.ranges import Range
from services.analytics.usage import Group, UsageFigures

_MAX_RANGES = 1000
_STATES = {
    ProducerState.OPEN: pb.PRODUCER_STATE_OPEN,
    ProducerState.CLOSED: pb.PRODUCER_STATE_CLOSED,
    ProducerState.CLOSED_UNCLEAN: pb.PRODUCER_STATE_CLOSED_UNCLEAN,
}
_GROUPS = {
    pb.USAGE_GROUP_TENANT: Group.TENANT,
    pb.USAGE_GROUP_MODEL: Group.MODEL,
    pb.USAGE_GROUP_PROMPT: Group.PROMPT,
    pb.USAGE_GROUP_ROUTE: Group.ROUTE,
    pb.USAGE_GROUP_PROJECT: Group.PROJECT,
    pb.USAGE_GROUP_HOUR: Group.HOUR,
    pb.USAGE_GROUP_DAY: Group.DAY,
}

M = TypeVar("M", bound=Message)
Timed = pb.GetUsageRequest | pb.ListInteractionsRequest | pb.GetCompletenessRequest | pb.ListAffectedAnswersRequest
AnyField = Any  # the stubs know two kinds of field descriptors; both have what is read here


def select_list(message_type: type[Message]) -> str:
    """The columns of a stored message; bytes travel as base64, since a driver would take them for text."""
    return ", ".join(_selected(field) for field in message_type.DESCRIPTOR.fields)


def make_columns() -> Columns:
    """What to select for each kind of row that is answered with."""
    return Columns(
        interaction=select_list(InteractionCompleted),
        evaluation=select_list(EvaluationScored),
        feedback=select_list(FeedbackRecorded),
    )


def message_from_row(message_type: type[M], row: Row) -> M:
    """The message that a row was, field by field; columns of no field are ignored."""
    message = message_type()
    _fill(message, row)
    return message


def dossier_to(dossier: InteractionDossier) -> pb.GetInteractionResponse:
    """The answer of GetInteraction."""
    return pb.GetInteractionResponse(
        interaction=message_from_row(InteractionCompleted, dossier.interaction),
        verdicts=[message_from_row(Verdict, row) for row in dossier.verdicts],
        evaluations=[message_from_row(EvaluationScored, row) for row in dossier.evaluations],
        feedback=[message_from_row(FeedbackRecorded, row) for row in dossier.feedback],
    )


def interactions_to(rows: Sequence[Row], next_page_token: str) -> pb.ListInteractionsResponse:
    """The answer of ListInteractions."""
    return pb.ListInteractionsResponse(
        interactions=[message_from_row(InteractionCompleted, row) for row in rows],
        next_page_token=next_page_token,
    )


def usage_to(figures: Sequence[UsageFigures]) -> pb.GetUsageResponse:
    """The answer of GetUsage."""
    return pb.GetUsageResponse(
        rows=[
            pb.UsageRow(
                group=one.group,
                requests=one.requests,
                errors=one.errors,
                blocked=one.blocked,
                input_tokens=one.input_tokens,
                output_tokens=one.output_tokens,
                cached_tokens=one.cached_tokens,
                cost_microusd=one.cost_microusd,
                latency_p50_us=one.latency_p50_us,
                latency_p95_us=one.latency_p95_us,
            )
            for one in figures
        ]
    )


def completeness_to(completeness: Completeness) -> pb.GetCompletenessResponse:
    """The answer of GetCompleteness; at most 1,000 ranges of a kind in an entry."""
    accounts = completeness.accounts
    return pb.GetCompletenessResponse(
        entries=[_entry(account) for account in accounts],
        complete=completeness.complete,
        missing=completeness.missing,
        evicted=completeness.evicted,
        pending=sum(account.pending for account in accounts),
        dead_lettered=sum(account.dead_lettered for account in accounts),
        duplicates=sum(account.stored.duplicates for account in accounts),
        unknown_tails=len({account.producer for account in accounts if account.unknown_tail}),
        open=len({account.producer for account in accounts if account.state is ProducerState.OPEN}),
    )


def affected_to(
    answers: Sequence[AffectedAnswer], *, total: int, next_page_token: str
) -> pb.ListAffectedAnswersResponse:
    """The answer of ListAffectedAnswers."""
    return pb.ListAffectedAnswersResponse(
        answers=[
            pb.AffectedAnswer(
                request_id=one.request_id,
                answer_time=_timestamp(one.answer_time),
                route=one.route,
                end_user_id=one.end_user_id,
                conversation_id=one.conversation_id,
                revisions=one.revisions,
                content_hashes=one.content_hashes,
                cited=one.cited,
            )
            for one in answers
        ],
        total=total,
        next_page_token=next_page_token,
    )


def time_from(message: Timed, name: str) -> datetime | None:
    """A request's time, aware; None where it is absent.

    Raises:
        InvalidRequest: it is out of a calendar's range.
    """
    if not message.HasField(name):  # type: ignore[arg-type]  # the stubs list the names as literals
        return None
    stamp: Timestamp = getattr(message, name)
    try:
        return stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(
            f"{name} must be a time from 0001 to 9999 with 0..999999999 nanoseconds, got seconds={stamp.seconds} "
            f"nanos={stamp.nanos}",
            field=name,
        ) from error


def groups_from(request: pb.GetUsageRequest) -> Sequence[Group]:
    """What to group by.

    Raises:
        InvalidRequest: an unknown or unspecified group, or one that stands twice.
    """
    chosen: list[Group] = []
    for position, number in enumerate(request.group_by):
        group = _GROUPS.get(number)
        if group is None or group in chosen:
            problem = "stands twice" if group in chosen else "is no group"
            raise InvalidRequest(
                f"group_by[{position}] must be one of {', '.join(_GROUP_NAMES)}, each at most once; {number} {problem}",
                field=f"group_by[{position}]",
            )
        chosen.append(group)
    return chosen


_GROUP_NAMES = tuple(pb.UsageGroup.Name(number) for number in _GROUPS)


def _entry(account: Account) -> pb.LedgerEntry:
    entry = pb.LedgerEntry(
        topic=account.topic,
        partition=account.partition,
        source=account.source,
        producer=account.producer,
        state=_STATES[account.state],
        accepted=account.span.accepted,
        accepted_from=account.span.after,
        stored=account.stored.count,
        duplicates=account.stored.duplicates,
        duplicate_ranges=_ranges(account.stored.doubled),
        missing=account.missing,
        missing_ranges=_ranges(account.shortfall.missing),
        pending=account.pending,
        pending_ranges=_ranges(account.shortfall.pending),
        dead_lettered=account.dead_lettered,
        dead_lettered_ranges=_ranges(account.shortfall.dead_lettered),
        unreported=account.stored.beyond,
        unknown_tail=account.unknown_tail,
    )
    if account.report_time is not None:
        entry.report_time.FromDatetime(account.report_time)
    return entry


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _ranges(ranges: Sequence[Range]) -> Sequence[pb.SequenceRange]:
    return [pb.SequenceRange(first=first, last=last) for first, last in ranges[:_MAX_RANGES]]


def _selected(field: AnyField) -> str:
    if field.name == "tenant_id":
        return "tenant AS tenant_id"  # the credential's, not the producer's word
    if field.type == FieldDescriptor.TYPE_BYTES:
        return f"base64Encode({field.name}) AS {field.name}"
    return str(field.name)


def _fill(message: Message, row: Row) -> None:
    for field in message.DESCRIPTOR.fields:
        value = row.get(field.name)
        if value is None:
            continue
        if field.message_type is None:
            _fill_scalar(message, field, value)
        elif field.message_type.GetOptions().map_entry:
            getattr(message, field.name).update(value)
        elif field.is_repeated:
            items = getattr(message, field.name)
            for one in value:
                _fill(items.add(), one)
        else:
            _fill_submessage(getattr(message, field.name), value)


def _fill_scalar(message: Message, field: AnyField, value: Any) -> None:
    if field.is_repeated:
        getattr(message, field.name).extend(value)
    else:
        plain = base64.b64decode(value) if field.type == FieldDescriptor.TYPE_BYTES else value
        setattr(message, field.name, plain)


def _fill_submessage(target: Message, value: Any) -> None:
    """A tuple of only defaults, and the epoch, are what the table makes of a message that was absent."""
    filled = type(target)()
    if isinstance(filled, Timestamp) and isinstance(value, datetime):
        filled.FromDatetime(value)
    else:
        _fill(filled, value)
    if filled.ByteSize():
        target.CopyFrom(filled)
