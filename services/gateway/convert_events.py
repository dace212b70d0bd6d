"""Records of the gateway → event messages. Pure; used by `events.py`."""

from binnacle.events.v1 import feedback_recorded_pb2 as feedback_pb
from binnacle.events.v1 import interaction_completed_pb2 as pb
from services.gateway import convert_types as types
from services.gateway.answer import Outcome
from services.gateway.convert import timestamp
from services.gateway.feedback import FeedbackKind, RecordedFeedback
from services.gateway.record import Interaction

_MICROSECONDS = 1_000_000
_OUTCOMES = {
    Outcome.ANSWERED: pb.INTERACTION_OUTCOME_ANSWERED,
    Outcome.BLOCKED: pb.INTERACTION_OUTCOME_BLOCKED,
    Outcome.REFUSED: pb.INTERACTION_OUTCOME_REFUSED,
    Outcome.FAILED: pb.INTERACTION_OUTCOME_FAILED,
    Outcome.CANCELLED: pb.INTERACTION_OUTCOME_CANCELLED,
    Outcome.DEADLINE: pb.INTERACTION_OUTCOME_DEADLINE,
}
_KINDS = {
    FeedbackKind.RATING: feedback_pb.FEEDBACK_TYPE_RATING,
    FeedbackKind.THUMBS: feedback_pb.FEEDBACK_TYPE_THUMBS,
    FeedbackKind.CORRECTION: feedback_pb.FEEDBACK_TYPE_CORRECTION,
    FeedbackKind.LABEL: feedback_pb.FEEDBACK_TYPE_LABEL,
}


def interaction_message(interaction: Interaction) -> pb.InteractionCompleted:
    """The event of a closed interaction."""
    message = pb.InteractionCompleted()
    _fill_request(message, interaction)
    _fill_end(message, interaction)
    _fill_provenance(message, interaction)
    return message


def _fill_request(message: pb.InteractionCompleted, interaction: Interaction) -> None:
    question, route = interaction.question, interaction.route
    message.request_id = interaction.request_id
    message.accept_time.CopyFrom(timestamp(interaction.accept_time))
    message.tenant_id = interaction.asker.tenant
    message.project = question.project
    message.end_user_id = question.end_user_id
    message.conversation_id = interaction.conversation_id
    message.idempotency_key = question.idempotency_key
    message.release = route.release
    message.route = question.route
    message.variant_probability = 1.0
    message.sticky_key = question.sticky_key or question.conversation_id or question.end_user_id
    message.model = interaction.model
    message.sampling.CopyFrom(types.sampling_message(interaction.sampling))
    message.deadline_granted_us = round(interaction.deadline_granted_s * _MICROSECONDS)
    message.retention_class = "default"
    message.training_consent = question.training_consent
    message.labels.update(question.labels)
    message.channel = question.channel
    if interaction.output_schema is not None:
        message.output_schema_hash = interaction.output_schema.hash


def _fill_end(message: pb.InteractionCompleted, interaction: Interaction) -> None:
    if interaction.outcome is None or interaction.complete_time is None:
        raise RuntimeError("an interaction is closed before its event is made")
    message.outcome = _OUTCOMES[interaction.outcome]
    message.complete_time.CopyFrom(timestamp(interaction.complete_time))
    message.query = interaction.query
    message.answer = interaction.recorded_answer
    message.finish_reason = types.finish_reason_number(interaction.final_reason)
    message.duration_us = round(interaction.duration_s * _MICROSECONDS)
    message.time_to_first_token_us = round((interaction.first_token_s or 0) * _MICROSECONDS)
    message.timings.extend(types.timing_messages(interaction.timings))
    message.cache_status = pb.CACHE_STATUS_BYPASS
    message.error_reason = interaction.error_reason
    message.retracted = interaction.retracted
    message.degradations.extend(types.degradation_messages(interaction.degradations))


def _fill_provenance(message: pb.InteractionCompleted, interaction: Interaction) -> None:
    message.policy_version = interaction.policy_version
    message.verdicts.extend(types.verdict_message(verdict) for verdict in interaction.verdicts)
    message.chunks.extend(types.chunk_ref_message(use.chunk, used=use.used) for use in interaction.chunk_uses)
    if interaction.search is not None:
        message.corpus_version = interaction.search.corpus_version
        message.embedding_model = interaction.search.embedding_model
    message.usage.CopyFrom(types.usage_message(interaction.usage))
    message.cost_microusd = interaction.cost.microusd
    message.price_version = interaction.cost.price_version
    if interaction.mean_logprob is not None:
        message.mean_logprob = interaction.mean_logprob
    message.invalid_markers.extend(interaction.invalid_markers)
    generated = interaction.generated
    if generated is None:
        return
    message.attempts.extend(types.attempt_message(attempt) for attempt in generated.attempts)
    prompt = types.prompt_message(generated.prompt)
    if prompt is not None:
        message.prompt.CopyFrom(prompt)
    if interaction.stand_in is None:
        message.citations.extend(types.citation_message(citation) for citation in interaction.citations)


def feedback_message(recorded: RecordedFeedback) -> feedback_pb.FeedbackRecorded:
    """The event of a feedback."""
    feedback = recorded.feedback
    if feedback.kind is None:
        raise RuntimeError("a feedback is checked before its event is made")
    return feedback_pb.FeedbackRecorded(
        feedback_id=feedback.feedback_id,
        request_id=feedback.request_id,
        record_time=timestamp(recorded.record_time),
        tenant_id=recorded.tenant,
        kind=_KINDS[feedback.kind],
        rating=feedback.rating or 0,
        thumbs_up=bool(feedback.thumbs_up),
        correction=feedback.correction or "",
        label=feedback.label or "",
        author=feedback.author,
        supersedes=feedback.supersedes,
        comment=feedback.comment,
    )
