"""The three checks: judge by the tenant's policy, redact, and record the decision. Called by `server.py`.

Every check publishes exactly one decision, which holds no text; its id is derived from the request, so that a
repeated check is the same event.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from servicekit.domain.verdict import Action, Surface, Verdict, combined_action
from servicekit.ports.clock import Clock
from services.guardrail.detectors.detector import Detector
from services.guardrail.judging import Assessment, Judge, Only, assessments, every
from services.guardrail.metrics import CHECK_SECONDS, CHECKS, RESTORED, VERDICTS
from services.guardrail.policy import OnFailure, PoliciesInForce, Policy
from services.guardrail.policy_store import PolicyStore
from services.guardrail.redacting import Found, Redactor
from services.guardrail.retrieved_cache import RetrievedCache, content_key
from services.guardrail.sealing import Owner
from services.guardrail.vault import Vault
from services.guardrail.vault_verdict import not_kept
from services.guardrail.verdicts import MAX_VERDICTS, strongest_first_kept
from services.guardrail.workers import Workers


@dataclass(frozen=True, slots=True)
class CheckContext:
    """What a check is part of. The tenant comes from the credential."""

    tenant: str
    request_id: str = ""
    conversation_id: str = ""
    route: str = ""

    @property
    def owner(self) -> Owner:
        """Whose placeholders these are: the conversation's, else the request's."""
        if self.conversation_id:
            return Owner(self.tenant, self.conversation_id)
        return Owner(self.tenant, self.request_id, of_request=True)


@dataclass(frozen=True, slots=True)
class RetrievedText:
    """A chunk's text; `cached` where the caller wants its judgement kept."""

    chunk_id: str
    text: str
    cached: bool = True


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of one text: `text` is what to go on with, empty when blocked."""

    action: Action
    verdicts: tuple[Verdict, ...]
    text: str
    policy_version: str
    groundedness: float | None = None


@dataclass(frozen=True, slots=True)
class RetrievedJudgements:
    """One judgement for each text, in order, by one policy."""

    judgements: tuple[tuple[str, Judgement], ...]
    policy_version: str


@dataclass(frozen=True, slots=True)
class RestoredTexts:
    """Texts with values put back, and how many placeholders were replaced and how many stayed."""

    texts: tuple[str, ...] = field(repr=False)
    restored: int
    unknown: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What is told of a check: everything but the text."""

    context: CheckContext
    surface: Surface
    action: Action
    verdicts: tuple[Verdict, ...]
    policy_version: str
    decide_time: datetime
    text_chars: int
    text_count: int
    duration_us: int
    piece: int = 0


Record = Callable[[Decision, float | None], Awaitable[None]]
"""Takes a decision in for publishing, within so many seconds (None: no bound by the caller)."""


class Guardrail:
    """Judges texts. `record` raises BackendUnavailable where a decision cannot be recorded: the check fails then."""

    def __init__(
        self,
        *,
        judge: Judge,
        policies: PolicyStore,
        cache: RetrievedCache,
        workers: Workers,
        record: Record,
        clock: Clock,
        vault: Vault,
        vault_failure: OnFailure = OnFailure.OPEN,
    ) -> None:
        self._judge = judge
        self._policies = policies
        self._cache = cache
        self._workers = workers
        self._record = record
        self._clock = clock
        self._redactor = Redactor(vault)
        self._vault = vault
        self._vault_failure = vault_failure

    async def check_input(self, text: str, context: CheckContext, *, deadline_s: float | None) -> Judgement:
        """Judge what a user typed.

        Raises (as all checks do):
            Overloaded, BackendTimeout: too much work, or not done within the deadline.
            BackendUnavailable: the decision could not be recorded.
        """
        return await self._check(Surface.INPUT, text, (), context, piece=0, deadline_s=deadline_s)

    async def check_output(
        self,
        text: str,
        chunk_texts: Sequence[str],
        context: CheckContext,
        *,
        piece: int,
        deadline_s: float | None,
        whole: bool = True,
    ) -> Judgement:
        """Judge an answer, or a piece of one (`whole` is false then), against the chunks it was made from."""
        return await self._check(
            Surface.OUTPUT, text, chunk_texts, context, piece=piece, deadline_s=deadline_s, whole=whole
        )

    async def check_retrieved(
        self, texts: Sequence[RetrievedText], context: CheckContext, *, deadline_s: float | None
    ) -> RetrievedJudgements:
        """Judge each chunk by itself; a block concerns that chunk alone."""
        started_s = self._clock.monotonic_s()
        in_force = self._policies.in_force(context.tenant, context.route)
        policy = in_force.policy
        chars = sum(len(item.text) for item in texts)
        assessed = await self._assess_retrieved(texts, in_force, deadline_s)
        redacted = await self._redactor.redact(
            [_found(item.text, found) for item, found in zip(texts, assessed, strict=True)],
            context.owner,
            remember=False,
        )
        judgements = tuple(
            (item.chunk_id, _judgement(text, _of_chunk(found, item.chunk_id), policy))
            for item, text, found in zip(texts, redacted.texts, assessed, strict=True)
        )
        verdicts = [verdict for _, judgement in judgements for verdict in judgement.verdicts]
        decision = self._decision(
            Surface.RETRIEVED, context, verdicts, policy, chars=chars, count=len(texts), started_s=started_s
        )
        await self._record(decision, self._left(deadline_s, started_s))
        return RetrievedJudgements(judgements, policy.version)

    async def restore(self, texts: Sequence[str], context: CheckContext) -> RestoredTexts:
        """Put back what users typed in this conversation, or request, where placeholders of it stand in the texts.

        Raises:
            BackendUnavailable: the vault is away, or its seal does not open.
        """
        restored = await self._vault.restore(context.owner, texts)
        count = sum(one.restored for one in restored)
        unknown = sum(one.unknown for one in restored)
        RESTORED.labels("restored").inc(count)
        RESTORED.labels("unknown").inc(unknown)
        return RestoredTexts(tuple(one.text for one in restored), count, unknown)

    async def _check(
        self,
        surface: Surface,
        text: str,
        chunk_texts: Sequence[str],
        context: CheckContext,
        *,
        piece: int,
        deadline_s: float | None,
        whole: bool = True,
    ) -> Judgement:
        started_s = self._clock.monotonic_s()
        in_force = self._policies.in_force(context.tenant, context.route)
        policy = in_force.policy
        (assessment,) = await self.assess(
            surface, (text,), in_force=in_force, chunk_texts=chunk_texts, deadline_s=deadline_s, whole=whole
        )
        judgement = await self._redacted(surface, text, assessment, policy, context)
        decision = self._decision(
            surface, context, judgement.verdicts, policy, chars=len(text), count=1, started_s=started_s
        )
        await self._record(replace(decision, piece=piece), self._left(deadline_s, started_s))
        return judgement

    async def _redacted(
        self, surface: Surface, text: str, assessment: Assessment, policy: Policy, context: CheckContext
    ) -> Judgement:
        """The judgement with its text redacted; what users typed is remembered, and told of where it cannot be."""
        remember = surface is Surface.INPUT
        redacted = await self._redactor.redact([_found(text, assessment)], context.owner, remember=remember)
        if not redacted.whole:
            verdict = not_kept(surface, policy_version=policy.version, on_failure=self._vault_failure)
            verdicts = (*assessment.verdicts, verdict)
            assessment = replace(assessment, verdicts=verdicts, action=combined_action(verdicts))
        return _judgement(redacted.texts[0], assessment, policy)

    async def assess(
        self,
        surface: Surface,
        texts: Sequence[str],
        *,
        in_force: PoliciesInForce,
        chunk_texts: Sequence[str] = (),
        deadline_s: float | None,
        only: Only = every,
        whole: bool = True,
    ) -> list[Assessment]:
        """What is found in each text, off the event loop; what fails or takes too long is decided by the policy."""
        examination = self._judge.examination(
            surface, texts, in_force=in_force, chunk_texts=chunk_texts, only=only, whole=whole
        )
        await self._workers.examine(examination, deadline_s=deadline_s)
        return assessments(examination)

    def in_force(self, context: CheckContext) -> PoliciesInForce:
        """What a check goes by from now to its end."""
        return self._policies.in_force(context.tenant, context.route)

    def asked(self, surface: Surface, in_force: PoliciesInForce) -> tuple[Detector, ...]:
        """The detectors that these policies ask about this surface."""
        return self._judge.asked(surface, in_force)

    async def redact(self, found: Sequence[Found], context: CheckContext) -> tuple[str, ...]:
        """Pieces of an answer with what was found in them replaced; nothing of it is remembered."""
        return (await self._redactor.redact(found, context.owner, remember=False)).texts

    async def record_output(
        self,
        verdicts: Sequence[Verdict],
        policy: Policy,
        context: CheckContext,
        *,
        chars: int,
        judging_s: float,
        deadline_s: float | None,
    ) -> None:
        """Record the one decision of an answer that was judged in pieces.

        Raises:
            BackendUnavailable: it could not be recorded.
        """
        started_s = self._clock.monotonic_s() - judging_s
        decision = self._decision(Surface.OUTPUT, context, verdicts, policy, chars=chars, count=1, started_s=started_s)
        await self._record(decision, deadline_s)

    async def _assess_retrieved(
        self, texts: Sequence[RetrievedText], in_force: PoliciesInForce, deadline_s: float | None
    ) -> list[Assessment]:
        """Those known already from memory, the others in one piece of work, each text once."""
        keys = [content_key(item.text, rules_version=self._judge.rules_version, in_force=in_force) for item in texts]
        found = {key: self._cache.get(key) if item.cached else None for key, item in zip(keys, texts, strict=True)}
        unknown = {key: item for key, item in zip(keys, texts, strict=True) if found[key] is None}
        if unknown:
            judged = await self.assess(
                Surface.RETRIEVED,
                [item.text for item in unknown.values()],
                in_force=in_force,
                deadline_s=deadline_s,
            )
            for (key, item), made in zip(unknown.items(), judged, strict=True):
                found[key] = made
                if item.cached:
                    self._cache.put(key, made)
        return [assessment for key in keys if (assessment := found[key]) is not None]

    def _decision(
        self,
        surface: Surface,
        context: CheckContext,
        verdicts: Sequence[Verdict],
        policy: Policy,
        *,
        chars: int,
        count: int,
        started_s: float,
    ) -> Decision:
        took_s = self._clock.monotonic_s() - started_s
        action = combined_action(verdicts)
        CHECK_SECONDS.labels(surface.value).observe(took_s)
        CHECKS.labels(surface.value, action.value).inc()
        for verdict in verdicts:
            VERDICTS.labels(verdict.detector, verdict.action.value).inc()
        return Decision(
            context=context,
            surface=surface,
            action=action,
            verdicts=strongest_first_kept(verdicts, at_most=MAX_VERDICTS),
            policy_version=policy.version,
            decide_time=self._clock.now(),
            text_chars=chars,
            text_count=count,
            duration_us=round(took_s * 1e6),
        )

    def _left(self, deadline_s: float | None, started_s: float) -> float | None:
        if deadline_s is None:
            return None
        return max(0.0, deadline_s - (self._clock.monotonic_s() - started_s))


def _of_chunk(assessment: Assessment, chunk_id: str) -> Assessment:
    return replace(assessment, verdicts=tuple(replace(verdict, chunk_id=chunk_id) for verdict in assessment.verdicts))


def _found(text: str, assessment: Assessment) -> Found:
    """What is to be replaced in the text: nothing where it is blocked, and goes nowhere."""
    return Found(text, () if assessment.action is Action.BLOCK else assessment.replaceable)


def _judgement(text: str, found: Assessment, policy: Policy) -> Judgement:
    text = "" if found.action is Action.BLOCK else text
    return Judgement(found.action, found.verdicts, text, policy.version, found.groundedness)
